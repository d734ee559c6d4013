"""How many sends a number, user, network, block and site may have.

The sends are counted in our own rows, so windows slide exactly and survive a cache
flush.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta

from django.db import connections
from django.db.models import Max
from django.utils import timezone

from .conf import Limit, conf
from .exceptions import (
    CooldownActive,
    InsideTransaction,
    LimitReached,
    VerificationError,
)
from .hashing import keyed_hashes
from .models import PhoneVerification, StartLock, primary_alias
from .starting import StartRequest
from .transactions import (
    Bounds,
    bounded_locks,
    bounding,
    statement_variables,
)
from .transitions import PhoneVerificationQuerySet

logger = logging.getLogger(__name__)

SALT = "django_idenfy_phone.limits"
# Limits of those who ask, in which also refusals of the account count for a while.
OWN_KINDS = ("number", "user", "network")
SHORT_WINDOW = timedelta(hours=1)

# When a limit or cooldown ends, and the error to raise until then.
Refusal = tuple[datetime, type[VerificationError]]


def lock(start: StartRequest, bounds: Bounds | None = None) -> None:
    """Lock number, block, user and network until the transaction ends.

    ``bounds`` is what ``joining_transaction`` yields: None in a caller's transaction.
    One upsert creates and takes the locks, in sorted order so that two starts cannot
    deadlock. Lock and count are two statements on purpose: in one, the count would see
    the rows from before the wait for the lock. Raises InsideTransaction where the
    caller's transaction would count in an old snapshot.
    """
    keys = [
        *_lock_keys("number", start.phone_number),
        *_lock_keys("block", start.number_block),
    ]
    if start.user_id is not None:
        keys += _lock_keys("user", str(start.user_id))
    if start.network:
        keys += _lock_keys("network", start.network)
    locked_at = bounding(bounds, timezone.now())
    is_own = bounds is not None
    with nullcontext() if is_own else _refusing_old_snapshot(primary_alias()):
        _upsert(
            [StartLock(key=key, locked_at=locked_at) for key in sorted(keys)],
            update_fields=["locked_at"],
        )


def _refusing_old_snapshot(using: str) -> AbstractContextManager[None]:
    """Fail rather than lock a row that changed since the transaction's snapshot.

    On MariaDB and MySQL in REPEATABLE READ, a caller's transaction that read before
    keeps its old snapshot, also after it waited for a lock: it would count too few
    rows. MariaDB aborts a statement of this block with error 1020 instead. A server
    that cannot do that raises InsideTransaction. PostgreSQL and SQLite abort by
    themselves.
    """
    if connections[using].vendor != "mysql":
        return nullcontext()
    if _variable(using, "innodb_snapshot_isolation"):
        return statement_variables(using, "innodb_snapshot_isolation = 1")
    if _variable(using, "tx_isolation", "transaction_isolation") == "READ-COMMITTED":
        return nullcontext()
    raise InsideTransaction


def _variable(using: str, *names: str) -> str:
    """The session's value of the first variable that the server has, else ""."""
    with connections[using].cursor() as cursor:
        cursor.execute("SHOW VARIABLES WHERE Variable_name IN %s", [names])
        found = cursor.fetchone()
    return str(found[1]) if found else ""


def clear(phone_number: str) -> None:
    """Reset the limits of an E.164 number: its earlier rows no longer count."""
    now = timezone.now()
    keys = sorted(_lock_keys("number", phone_number))
    with bounded_locks(primary_alias()) as bounds:
        locked_at = bounding(bounds, now)
        _upsert(
            [StartLock(key=key, locked_at=locked_at, cleared_at=now) for key in keys],
            update_fields=["locked_at", "cleared_at"],
        )


def _lock_keys(kind: str, value: str) -> list[str]:
    """Keyed hashes: locks outlive rows, and hold no number in clear.

    All are locked: releases with an old and a new SECRET_KEY exclude each other.
    """
    return keyed_hashes(f"{SALT}.{kind}", value)


def _upsert(locks: list[StartLock], update_fields: list[str]) -> None:
    features = connections[primary_alias()].features
    wants_target = features.supports_update_conflicts_with_target
    StartLock.objects.bulk_create(
        locks,
        update_conflicts=True,
        update_fields=update_fields,
        unique_fields=["key"] if wants_target else None,
    )


def enforce(start: StartRequest) -> None:
    """Raise CooldownActive or LimitReached where this start has to wait.

    A start after its ``retry_after`` succeeds, unless somebody else starts in between.
    """
    now = timezone.now()
    refusals = [*_cooldowns(start, now), *_reached_limits(start, now)]
    if refusals:
        end, error = max(refusals, key=lambda refusal: refusal[0])
        raise error(retry_after=end - now)


def _rows_of_number(start: StartRequest) -> PhoneVerificationQuerySet:
    rows = PhoneVerification.objects.filter(phone_number=start.phone_number)
    keys = _lock_keys("number", start.phone_number)
    locks = StartLock.objects.filter(key__in=keys)
    cleared_at = locks.aggregate(latest=Max("cleared_at"))["latest"]
    return rows.filter(created_at__gt=cleared_at) if cleared_at else rows


def _cooldowns(start: StartRequest, now: datetime) -> Iterator[Refusal]:
    last_day = _rows_of_number(start).filter(created_at__gt=now - timedelta(days=1))
    rows = list(last_day.order_by("-created_at"))
    ends = [row.resend_at for row in rows[:1]]
    sends = [row for row in rows if row.is_counted]
    if sends:
        steps = conf.RESEND_COOLDOWN
        seconds = steps[min(len(sends), len(steps)) - 1]
        ends.append(sends[0].created_at + timedelta(seconds=seconds))
    yield from ((end, CooldownActive) for end in ends if end > now)


def _reached_limits(start: StartRequest, now: datetime) -> Iterator[Refusal]:
    """A limit of n is reached until the n-th newest row of its window has left it."""
    for kind, rows in _rows_by_kind(start).items():
        for limit in conf.SEND_LIMITS[kind]:
            nth_newest = _nth_newest(kind, rows, limit, now)
            if nth_newest is not None:
                # A person must look: it is an attack, or the host outgrew its limits.
                if kind in ("block", "site"):
                    logger.critical(
                        "The limit of a %s is reached: %s in %s.", kind, *limit
                    )
                yield nth_newest + limit.window, LimitReached


def _rows_by_kind(start: StartRequest) -> dict[str, PhoneVerificationQuerySet]:
    """The rows that each kind of limit counts, without the kinds that do not apply."""
    rows = PhoneVerification.objects.all()
    kinds = {
        "number": _rows_of_number(start),
        "block": rows.filter(number_block=start.number_block),
        "site": rows,
    }
    if start.user_id is not None:
        kinds["user"] = rows.filter(user_id=start.user_id)
    if start.network:
        kinds["network"] = rows.filter(network=start.network)
    return kinds


def _nth_newest(
    kind: str, rows: PhoneVerificationQuerySet, limit: Limit, now: datetime
) -> datetime | None:
    """When the n-th newest row of the window was created; None if there are fewer.

    Refusals of the account count in short windows of those who caused them. They never
    count for a block or the site: one account could shut out all others.
    """
    counts_refusals = kind in OWN_KINDS and limit.window <= SHORT_WINDOW
    counted = rows.counted(with_account_refusals=counts_refusals)
    newest = counted.filter(created_at__gt=now - limit.window)
    times = newest.order_by("-created_at").values_list("created_at", flat=True)
    return times[limit.sends - 1 : limit.sends].first()
