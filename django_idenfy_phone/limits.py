"""How many sends a number, user, network, block and site may have.

The sends are counted in our own rows, so windows slide exactly and survive a cache
flush.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from django.db import connections
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from . import look, site
from .alarms import alarm
from .conf import Limit, conf
from .exceptions import (
    CooldownActive,
    InsideTransaction,
    LimitReached,
    VerificationError,
)
from .hashing import keyed_hashes
from .look import ALL, COUNTED, COUNTED_OR_REFUSED, Found, Newest
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
NEWEST_ROW = Newest("number", ALL, UNCOUNTED_COOLDOWN, 1, 1)


def lock(start: StartRequest, bounds: Bounds | None = None) -> dict[str, datetime]:
    """Lock number, block, user and network until the transaction ends.

    Returns when an operator cleared those that were cleared, by kind. ``bounds`` is
    what ``joining_transaction`` yields: None in a caller's transaction. One upsert
    creates and takes the locks, in sorted order so that two starts cannot deadlock.
    Raises InsideTransaction where the caller's transaction would count in an old
    snapshot.
    """
    using, now = primary_alias(), timezone.now()
    kind_of = {key: kind for kind in _kinds(start) for key in _lock_keys(kind, start)}
    is_own = bounds is not None
    with nullcontext() if is_own else _refusing_old_snapshot(using):
        cleared_at = look.take_locks(using, sorted(kind_of), now, bounds)
    latest = sorted(cleared_at.items(), key=itemgetter(1))
    return {kind_of[key]: moment for key, moment in latest}


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
    now, using = timezone.now(), primary_alias()
    features = connections[using].features
    with bounded_locks(using) as bounds:
        locked_at = bounding(bounds, now)
        StartLock.objects.bulk_create(
            [
                StartLock(key=key, locked_at=locked_at, cleared_at=now)
                for key in sorted(_hashes("number", phone_number))
            ],
            update_conflicts=True,
            update_fields=["locked_at", "cleared_at"],
            unique_fields=["key"]
            if features.supports_update_conflicts_with_target
            else None,
        )


def _lock_keys(kind: str, start: StartRequest) -> list[str]:
    """What a start locks for this kind of limit: nothing for the site, a fuse."""
    match kind:
        case "number":
            return _hashes(kind, start.phone_number)
        case "block":
            return _hashes(kind, start.number_block)
        case "user":
            return _hashes(kind, str(start.user_id))
        case "network":
            return _hashes(kind, start.network)
    return []


def _hashes(kind: str, value: str) -> list[str]:
    """Keyed hashes: locks outlive rows, and hold no number in clear.

    All are locked: releases with an old and a new SECRET_KEY exclude each other.
    """
    return keyed_hashes(f"{SALT}.{kind}", value)


def look_up(
    start: StartRequest, cleared_at: Mapping[str, datetime], key_hashes: Sequence[str]
) -> Found:
    """All that can refuse a start, in one SELECT. ``lock`` returns ``cleared_at``."""
    now = timezone.now()
    asked = [NEWEST_ROW, _newest_sends()]
    asked += [
        _nth(kind, limit)
        for kind in _kinds(start)
        if kind != "site"
        for limit in conf.SEND_LIMITS[kind]
    ]
    since = {
        each: max(now - each.window, cleared_at.get(each.kind, now - each.window))
        for each in asked
    }
    return look.look(primary_alias(), start, asked, since, key_hashes)


def _newest_sends() -> Newest:
    """The sends of a number that its cooldown depends on."""
    return Newest("number", COUNTED, DAY, 1, len(conf.RESEND_COOLDOWN))


def _nth(kind: str, limit: Limit) -> Newest:
    """The row at which a limit is reached."""
    rows = COUNTED_OR_REFUSED if _counts_refusals(kind, limit) else COUNTED
    return Newest(kind, rows, limit.window, limit.sends, limit.sends)


def _counts_refusals(kind: str, limit: Limit) -> bool:
    """Whether refusals of the account count.

    In short windows of those who caused them, and never for a block or the site, since
    one account could shut out all others.
    """
    return kind in OWN_KINDS and limit.window <= SHORT_WINDOW


def enforce(start: StartRequest, found: Found) -> None:
    """Raise CooldownActive or LimitReached where this start has to wait.

    A start after its ``retry_after`` succeeds, unless somebody else starts in between.
    """
    now = timezone.now()
    newest, sends = found.created_at[NEWEST_ROW], found.created_at[_newest_sends()]
    cooldowns = _cooldown_ends(newest, sends)
    refusals: list[Refusal] = [(end, CooldownActive) for end in cooldowns if end > now]
    for kind, limit, created_at in _reached_limits(start, found, now):
        # A person must look: it is an attack, or the host outgrew its limits.
        if kind in ("block", "site"):
            text = f"The limit of a {kind} is reached: %s in %s."
            alarm(logger.critical, text, *limit)
        refusals.append((created_at + limit.window, LimitReached))
    if refusals:
        end, error = max(refusals, key=itemgetter(0))
        raise error(retry_after=end - now)


def _reached_limits(
    start: StartRequest, found: Found, now: datetime
) -> Iterator[tuple[str, Limit, datetime]]:
    """A limit of n is reached until the n-th newest row of its window has left it."""
    for kind in _kinds(start):
        for limit in conf.SEND_LIMITS[kind]:
            if kind == "site":
                created_at = site.counter().nth_newest(limit, now)
            else:
                created_at = next(iter(found.created_at[_nth(kind, limit)]), None)
            if created_at is not None:
                yield kind, limit, created_at


def count_site() -> None:
    """Count the site's starts anew where it is time: before a transaction begins."""
    if conf.SEND_LIMITS["site"]:
        site.counter().recount(timezone.now())


def count_start(row: PhoneVerification) -> None:
    """Count a start that was just committed, in the site's limit of this process."""
    if conf.SEND_LIMITS["site"]:
        site.counter().add(row.created_at)


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
    of_number = [each for each in own_rows if each["of_number"]]
    newest = [each["created_at"] for each in of_number[:1]]
    sends = [each["created_at"] for each in of_number if each[COUNTED]]
    ends = list(_cooldown_ends(newest, sends))
    for kind in _kinds(next_start):
        for limit in conf.SEND_LIMITS[kind]:
            counts = _nth(kind, limit).rows
            rows = [each for each in own_rows if each[f"of_{kind}"] and each[counts]]
            if len(rows) >= limit.sends:
                ends.append(rows[limit.sends - 1]["created_at"] + limit.window)
    return max(ends, default=row.created_at)


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
        **{
            COUNTED: rows.is_counted(),
            COUNTED_OR_REFUSED: rows.is_counted(with_account_refusals=True),
        },
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
            keys = _lock_keys("number", start)
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


def _cooldown_ends(
    newest: Sequence[datetime], sends: Sequence[datetime]
) -> Iterator[datetime]:
    """When a number allows a new start.

    ``newest`` holds the time of its newest row, and ``sends`` those of the counted rows
    of the last day, newest first.
    """
    steps = [timedelta(seconds=seconds) for seconds in conf.RESEND_COOLDOWN]
    if newest and newest[0] not in sends:
        yield newest[0] + min(steps[0], UNCOUNTED_COOLDOWN)
    if sends:
        # From these times on, the last day holds only one send, only two, … all.
        times = [*(sent_at + DAY for sent_at in sends[1:]), sends[0]]
        yield min(
            max(time, sends[0] + steps[min(count, len(steps)) - 1])
            for count, time in enumerate(times, start=1)
        )
