"""How many sends a number, user, network, block and site may have.

The sends are counted in our own rows, so windows slide exactly and survive a cache
flush.
"""

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from django.db import connections
from django.utils import timezone

from . import brake, look, site
from .alarms import alarm
from .conf import DEFAULT_SEND_LIMITS, Limit, conf
from .exceptions import (
    CooldownActive,
    InsideTransaction,
    LimitReached,
    StartRefused,
)
from .hashing import keyed_hashes
from .look import ALL, COUNTED, COUNTED_OR_REFUSED, Counts, Rows, Window
from .models import PhoneVerification, StartLock, primary_alias
from .phone import mask, written
from .starting import StartRequest
from .statements import Statement, run
from .transactions import (
    Bounds,
    bounded_locks,
    bounding,
    durable_statement,
    retry_on_abort,
    statement_variables,
)

logger = logging.getLogger(__name__)

SALT = "django_idenfy_phone.limits"
# Limits of those who ask, in which also refusals of the account count for a while.
OWN_KINDS = ("number", "user", "network")
COOLDOWN = "cooldown"
# The limits of many people, and their alarms.
REACHED = {
    "block": "The limit of the block %s is reached: %s in %s, until %s.",
    "site": "The limit of the site is reached: %s in %s, until %s.",
}
SHORT_WINDOW = timedelta(hours=1)
DAY = timedelta(days=1)
# How long a number waits for a new start when nothing was sent.
UNCOUNTED_COOLDOWN = timedelta(seconds=10)


class Refusal(NamedTuple):
    """When a limit or cooldown ends. ``reason`` is as that of StartRefused."""

    ends_at: datetime
    reason: str

    def error(self, now: datetime) -> StartRefused:
        """What to raise until then."""
        error_class = CooldownActive if self.reason == COOLDOWN else LimitReached
        error = error_class(retry_after=self.ends_at - now)
        error.reason = self.reason
        return error


# What the cooldown of a number depends on.
RECENT = Rows("number", ALL, UNCOUNTED_COOLDOWN)
SENDS_OF_DAY = Rows("number", COUNTED, DAY)


def lock_and_count(
    start: StartRequest, key_hashes: Sequence[str], bounds: Bounds | None = None
) -> tuple[Counts, dict[str, datetime]]:
    """Lock number, block, user and network until the transaction ends, then count.

    Returns what there is that may refuse the start, and by kind when an operator
    cleared it. ``bounds`` is what ``joining_transaction`` yields: None in a caller's
    transaction. One upsert creates and takes the locks, in sorted order so that two
    starts cannot deadlock. Raises InsideTransaction where the caller's transaction
    would count in an old snapshot.
    """
    using, now = primary_alias(), timezone.now()
    kind_of = _kind_by_key(_values(start))
    locking = look.locking(using, sorted(kind_of), now, bounds)
    is_own = bounds is not None
    with nullcontext() if is_own else _refusing_old_snapshot(using):
        found, counts = run(using, locking, _counting(start, key_hashes))
    if not is_own:
        # Earlier, it would begin the snapshot of the caller's transaction.
        count_site()
    return counts, _latest(kind_of, found)


def _counting(start: StartRequest, key_hashes: Sequence[str]) -> Statement[Counts]:
    windows = [("number", each) for each in (DAY, *map(_seconds, conf.RESEND_COOLDOWN))]
    limits = [*_exact_limits(start), *_own_site_limits(start)]
    windows += [(kind, limit.window) for kind, limit in limits]
    now, has_brake = timezone.now(), brake.is_enforced()
    since = {(kind, window): now - window for kind, window in windows}
    return look.counting(primary_alias(), start, since, key_hashes, has_brake=has_brake)


def _values(start: StartRequest) -> dict[str, Any]:
    """Whose sends the limits count under locks, by kind."""
    return {kind: start.value_of(kind) for kind in _locked_kinds(start)}


def _kind_by_key(values: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each lock. They outlive rows, and hold no number in clear.

    All are locked: releases with an old and a new SECRET_KEY exclude each other.
    """
    return {
        key: kind
        for kind, value in values.items()
        for key in keyed_hashes(f"{SALT}.{kind}", str(value))
    }


def _latest(
    kind_of: Mapping[str, str], cleared_at: Mapping[str, datetime]
) -> dict[str, datetime]:
    latest = sorted(cleared_at.items(), key=itemgetter(1))
    return {kind_of[key]: moment for key, moment in latest}


def _refusing_old_snapshot(using: str) -> AbstractContextManager[None]:
    """Fail rather than lock a row that changed since the transaction's snapshot.

    On MariaDB and MySQL in REPEATABLE READ, a caller's transaction that read before
    keeps its old snapshot while it waits, and would count too few rows. MariaDB aborts
    a statement of this block with error 1020 instead; else it is InsideTransaction.
    PostgreSQL and SQLite abort by themselves.
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


def clear(values: Mapping[str, Any]) -> None:
    """Reset limits: earlier rows of a number, user or network no longer count.

    ``values`` holds an E.164 "number", the primary key of a "user" and a "network", or
    some of them.
    """
    now, using = timezone.now(), primary_alias()
    has_target = connections[using].features.supports_update_conflicts_with_target
    keys = sorted(_kind_by_key(values))
    with bounded_locks(using) as bounds:
        locked_at = bounding(bounds, now)
        StartLock.objects.bulk_create(
            [StartLock(key=key, locked_at=locked_at, cleared_at=now) for key in keys],
            update_conflicts=True,
            update_fields=["locked_at", "cleared_at"],
            unique_fields=["key"] if has_target else None,
        )


def forget(kind: str, value: Any) -> int:
    """Delete the locks of a number or a user, and how it was cleared. Returns how many.

    A start that holds one is waited for, and one that waits makes it anew.
    """

    def delete() -> int:
        with durable_statement(using) as bounds:
            deleted, _by_model = locks.filter(bounds).delete()
        return deleted

    using = primary_alias()
    locks = StartLock.objects.filter(key__in=_kind_by_key({kind: value}))
    return retry_on_abort(delete, using)


def cleared_at(values: Mapping[str, Any]) -> dict[str, datetime]:
    """When an operator last reset the limits of those that were reset, by kind.

    ``values`` is as that of ``clear``. Locks nothing.
    """
    kind_of = _kind_by_key(values)
    locks = StartLock.objects.filter(key__in=kind_of, cleared_at__isnull=False)
    found = {lock.key: lock.cleared_at for lock in locks if lock.cleared_at}
    return _latest(kind_of, found)


def cleared_for(row: PhoneVerification, user_id: Any) -> dict[str, datetime]:
    """As ``cleared_at``, for a start of this user for the row's number."""
    return cleared_at(_values(_start_again(row, user_id)))


def _start_again(row: PhoneVerification, user_id: Any) -> StartRequest:
    return StartRequest(
        phone_number=written(row.phone_number),
        region=row.region,
        user_id=user_id,
        network=row.network,
        purpose=row.purpose,
        idempotency_key=None,
    )


def _exact_limits(start: StartRequest) -> list[tuple[str, Limit]]:
    """The limits of a start that are counted under locks: not those of the site."""
    return [
        (kind, limit) for kind in _locked_kinds(start) for limit in conf.limits_of(kind)
    ]


@cache
def rows_of(kind: str, limit: Limit) -> Rows:
    """What a limit counts."""
    counts = COUNTED_OR_REFUSED if counts_refusals(kind, limit) else COUNTED
    return Rows(kind, counts, limit.window)


def counts_refusals(kind: str, limit: Limit) -> bool:
    """Whether a limit counts refusals of the account: short ones of their causes do.

    In a block or the site, one account could shut out all others.
    """
    return kind in OWN_KINDS and limit.window <= SHORT_WINDOW


def enforce(
    start: StartRequest, counts: Counts, cleared_at: Mapping[str, datetime]
) -> None:
    """Raise CooldownActive or LimitReached where this start has to wait.

    A start after its ``retry_after`` succeeds, unless somebody else starts in between.
    """
    now = timezone.now()
    refusals = [
        _refusal(start, "site", limit, created_at)
        for limit in conf.limits_of("site")
        if (created_at := site.nth_newest(limit, now))
    ]
    if _may_refuse(start, counts.created):
        refusals += _exact_refusals(start, cleared_at)
    until = counts.braked_until
    if until and brake.refuses(until, start.user_id):
        refusals.append(Refusal(until, brake.BRAKE))
    last = max(refusals, key=attrgetter("ends_at"), default=None)
    if last is not None and last.ends_at > now:
        raise last.error(now)


def _may_refuse(start: StartRequest, created: Mapping[Window, int]) -> bool:
    """False where all rows, also those that do not count, are too few to refuse."""
    # A row that does not count makes a number wait no longer than the first step.
    steps = conf.RESEND_COOLDOWN[: created["number", DAY]]
    return any(created["number", each] for each in map(_seconds, steps)) or any(
        created[kind, limit.window] >= limit.sends
        for kind, limit in _exact_limits(start)
    )


def _seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


def _exact_refusals(
    start: StartRequest,
    cleared_at: Mapping[str, datetime],
    own: uuid.UUID | None = None,
) -> Iterator[Refusal]:
    """A limit of n is reached until the n-th newest row of its window has left it.

    With ``own``, the id of a row, only this row and those of the user count.
    """
    limits, steps = _exact_limits(start), len(conf.RESEND_COOLDOWN)
    limits += _own_site_limits(start) if own else []
    asked = [(RECENT, range(1)), (SENDS_OF_DAY, range(steps))]
    asked += [
        (rows_of(kind, limit), range(limit.sends - 1, limit.sends))
        for kind, limit in limits
    ]
    now = timezone.now()
    since = {rows: now - rows.window for rows, _places in asked}
    since |= {
        rows: max(begin, cleared_at[rows.kind])
        for rows, begin in since.items()
        if rows.kind in cleared_at
    }
    newest, sends, *nth_newest = look.newest(primary_alias(), start, asked, since, own)
    for end in cooldown_ends(newest, sends):
        yield Refusal(end, COOLDOWN)
    for (kind, limit), found in zip(limits, nth_newest, strict=True):
        for created_at in found:
            yield _refusal(start, kind, limit, created_at, is_shown=own is not None)


def ends_of_own_rows(
    row: PhoneVerification, user_id: Any, cleared_at: Mapping[str, datetime]
) -> list[datetime]:
    """When what refuses a user's start for a row's number ends, as own rows tell."""
    start = _start_again(row, user_id)
    return [each.ends_at for each in _exact_refusals(start, cleared_at, own=row.pk)]


def _refusal(
    start: StartRequest,
    kind: str,
    limit: Limit,
    created_at: datetime,
    *,
    is_shown: bool = False,
) -> Refusal:
    ends_at = created_at + limit.window
    # A person must look: it is an attack, or the host outgrew its limits.
    if kind in REACHED and not is_shown:
        which = [f"{mask(start.number_block)}****"] if kind == "block" else []
        until = ends_at.isoformat(timespec="seconds")
        alarm(logger.critical, REACHED[kind], *which, *limit, until)
    return Refusal(ends_at, kind)


def count_site() -> None:
    """Count the site's starts anew where it is time."""
    if conf.limits_of("site"):
        site.recount()


def count_start(row: PhoneVerification) -> None:
    """Count a start that was just committed, in the site's limit of this process."""
    if conf.limits_of("site"):
        site.add(row.created_at)


def is_near(start: StartRequest, created: Mapping[Window, int]) -> bool:
    """Whether one more start may reach a limit by rows that were there before."""
    return bool(created["number", DAY]) or any(
        1 < limit.sends <= created[kind, limit.window] + 1
        for kind, limit in [*_exact_limits(start), *_own_site_limits(start)]
    )


def _own_site_limits(start: StartRequest) -> list[tuple[str, Limit]]:
    """The site's limits, as those of one user: what a user alone can reach."""
    limits = conf.limits_of("site") if start.user_id is not None else ()
    return [("user", limit) for limit in limits]


def longest_window(kinds: Iterable[str] = DEFAULT_SEND_LIMITS) -> timedelta:
    """How long a row may count: in the limits of these kinds, or for its number's day.

    An idempotency key and the time to redeem a proof are not longer than that day.
    """
    windows = [limit.window for kind in kinds for limit in conf.limits_of(kind)]
    return max([DAY, *windows])


def kinds(user_id: Any, network: str) -> list[str]:
    """The kinds of limits that apply to a start."""
    known = ["number", "block", "site"]
    if user_id is not None:
        known.append("user")
    if network:
        known.append("network")
    return known


def _locked_kinds(start: StartRequest) -> list[str]:
    # The site is a fuse: it has no lock.
    known = kinds(start.user_id, start.network)
    return [kind for kind in known if kind != "site"]


def cooldown_ends(
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
