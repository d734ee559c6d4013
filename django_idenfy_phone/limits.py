"""How many sends a number, user, network, block and site may have.

The sends are counted in our own rows, so windows slide exactly and survive a cache
flush.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from django.db import connections
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from .alarms import alarm
from .conf import Limit, conf
from .exceptions import (
    CooldownActive,
    InsideTransaction,
    LimitReached,
    VerificationError,
)
from .hashing import keyed_hashes
from .models import PhoneVerification, StartLock, primary_alias
from .phone import written
from .starting import StartRequest
from .transactions import (
    Bounds,
    bounded_locks,
    bounding,
    statement_variables,
)

logger = logging.getLogger(__name__)

SALT = "django_idenfy_phone.limits"
# Limits of those who ask, in which also refusals of the account count for a while.
OWN_KINDS = ("number", "user", "network")
SHORT_WINDOW = timedelta(hours=1)
DAY = timedelta(days=1)
# How long a number waits for a new start when nothing was sent.
UNCOUNTED_COOLDOWN = timedelta(seconds=10)

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


def _cooldowns(start: StartRequest, now: datetime) -> Iterator[Refusal]:
    rows = PhoneVerification.objects.filter(created_at__gt=now - DAY)
    of_number = rows.filter(_condition("number", start)).order_by("-created_at")
    newest = list(of_number.values("created_at", is_counted=rows.is_counted()))
    yield from ((end, CooldownActive) for end in _cooldown_ends(newest) if end > now)


def _reached_limits(start: StartRequest, now: datetime) -> Iterator[Refusal]:
    def nth_newest(kind: str, limit: Limit, with_refusals: bool) -> datetime | None:
        rows = PhoneVerification.objects.counted(with_account_refusals=with_refusals)
        newest = rows.filter(_condition(kind, start), created_at__gt=now - limit.window)
        times = newest.order_by("-created_at").values_list("created_at", flat=True)
        return times[limit.sends - 1 : limit.sends].first()

    for kind, limit, end in _limit_ends(start, nth_newest):
        # A person must look: it is an attack, or the host outgrew its limits.
        if kind in ("block", "site"):
            text = f"The limit of a {kind} is reached: %s in %s."
            alarm(logger.critical, text, *limit)
        yield end, LimitReached


def resend_at(row: PhoneVerification, user_id: Any) -> datetime:
    """When its caller may start again for this number, as the caller's own rows tell.

    Those are the row itself and all rows of ``user_id``, which is None without a login.
    So it shows nothing of the starts of other people, which may refuse a start too.
    """
    next_start = StartRequest(
        phone_number=written(row.phone_number),
        region=row.region,
        user_id=user_id,
        network=row.network,
        purpose=row.purpose,
        idempotency_key=None,
    )
    own_rows = _own_rows(row, next_start)

    def nth_newest(kind: str, limit: Limit, with_refusals: bool) -> datetime | None:
        counts = "is_counted_in_short_windows" if with_refusals else "is_counted"
        rows = [each for each in own_rows if each[f"of_{kind}"] and each[counts]]
        return rows[limit.sends - 1]["created_at"] if len(rows) >= limit.sends else None

    of_number = [each for each in own_rows if each["of_number"]]
    limit_ends = (end for *_, end in _limit_ends(next_start, nth_newest))
    return max([*_cooldown_ends(of_number), *limit_ends], default=row.created_at)


def _own_rows(
    row: PhoneVerification, start: StartRequest
) -> Sequence[Mapping[str, Any]]:
    """What limits count of the row and of this user's rows, newest first: one query."""

    def since(kinds: Iterable[str]) -> datetime:
        limits = [limit for kind in kinds for limit in conf.SEND_LIMITS[kind]]
        return timezone.now() - max([DAY, *(limit.window for limit in limits)])

    kinds = _kinds(start)
    rows = PhoneVerification.objects.filter(pk=row.pk)
    if start.user_id is not None:
        own = PhoneVerification.objects.filter(user_id=start.user_id)
        rows |= own.filter(created_at__gt=since(set(kinds) - {"number"}))
        # Of a user who proves many numbers, only a few of the older rows matter.
        of_number = own.filter(_condition("number", start))
        rows |= of_number.filter(created_at__gt=since(["number"]))
    facts = rows.values(
        "created_at",
        is_counted=rows.is_counted(),
        is_counted_in_short_windows=rows.is_counted(with_account_refusals=True),
        **{f"of_{kind}": _condition(kind, start) for kind in kinds},
    )
    # Not by ORDER BY: SQLite would read the whole table in that order.
    return sorted(facts, key=itemgetter("created_at"), reverse=True)


def _kinds(start: StartRequest) -> list[str]:
    """The kinds of limits that apply to a start."""
    kinds = ["number", "block", "site"]
    if start.user_id is not None:
        kinds.append("user")
    if start.network:
        kinds.append("network")
    return kinds


def _condition(kind: str, start: StartRequest) -> Q:
    """Which rows this kind of limit counts for a start."""
    match kind:
        case "number":
            keys = _lock_keys("number", start.phone_number)
            locks = StartLock.objects.filter(key__in=keys)
            cleared = locks.filter(cleared_at__gte=OuterRef("created_at"))
            return Q(Q(phone_number=start.phone_number), ~Exists(cleared))
        case "block":
            return Q(number_block=start.number_block)
        case "user":
            return Q(user_id=start.user_id)
        case "network":
            return Q(network=start.network)
    # The site's limit counts all.
    return Q()


def _cooldown_ends(rows: Sequence[Mapping[str, Any]]) -> Iterator[datetime]:
    """When the rows of a number, newest first, allow a new start."""
    steps = [timedelta(seconds=seconds) for seconds in conf.RESEND_COOLDOWN]
    if rows and not rows[0]["is_counted"]:
        yield rows[0]["created_at"] + min(steps[0], UNCOUNTED_COOLDOWN)
    if sends := [row["created_at"] for row in rows if row["is_counted"]]:
        # From these times on, the last day holds only one send, only two, … all.
        times = [*(sent_at + DAY for sent_at in sends[1:]), sends[0]]
        yield min(
            max(time, sends[0] + steps[min(count, len(steps)) - 1])
            for count, time in enumerate(times, start=1)
        )


def _limit_ends(
    start: StartRequest,
    nth_newest: Callable[[str, Limit, bool], datetime | None],
) -> Iterator[tuple[str, Limit, datetime]]:
    """A limit of n is reached until the n-th newest row of its window has left it.

    ``nth_newest`` gets a kind, a limit, and whether refusals of the account count: in
    short windows of those who caused them, and never for a block or the site, since
    one account could shut out all others. It returns when that row was created, or None
    where there are fewer.
    """
    for kind in _kinds(start):
        for limit in conf.SEND_LIMITS[kind]:
            with_refusals = kind in OWN_KINDS and limit.window <= SHORT_WINDOW
            created_at = nth_newest(kind, limit, with_refusals)
            if created_at is not None:
                yield kind, limit, created_at + limit.window
