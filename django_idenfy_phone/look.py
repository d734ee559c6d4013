"""What a start asks the database, as SQL that is built once and kept.

By hand, since the ORM would build a dozen statements anew for each start.
``locking`` takes the locks, ``counting`` counts all that may refuse the start, and
``newest`` tells exactly what does, and until when, only where something may. Locks and
counts stay two statements: in one, the counts would come from before the wait for a
lock.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from django.db.models import Model

from .models import GATE_ID, PhoneVerification, ProviderGate, RegionBrake, StartLock
from .starting import StartRequest
from .statements import Statement, Table, moment_reader
from .statuses import KEY_REFUSED, UNCOUNTED_FAILURES, Failure, Status
from .transactions import Bounds, bounding_sql

FIELDS = {
    "number": "phone_number",
    "block": "number_block",
    "user": "user",
    "network": "network",
}
COLUMNS = FIELDS | {"user": "user_id"}
GATE_COLUMNS = (
    "theoretical_arrival_at",
    "sent_arrival_at",
    "sends_paused_until",
    "account_paused_until",
)
# The times of the key, of the brake and of the gate.
TIMES = 2 + len(GATE_COLUMNS)

# Which rows of a kind: the same as PhoneVerificationQuerySet.counted, in SQL.
ALL = "all"
COUNTED = "counted"
# Also those that iDenfy refused for contract or credits, but not for the key.
COUNTED_OR_REFUSED = "counted_or_refused"
_UNCOUNTED = ", ".join(f"'{failure.value}'" for failure in UNCOUNTED_FAILURES)
_IS_UNCOUNTED = f"status = '{Status.FAILED.value}' AND failure IN ({_UNCOUNTED})"
_IS_REFUSED = (
    f"failure = '{Failure.ACCOUNT.value}' AND provider_code <> '{KEY_REFUSED}'"
)
CONDITIONS = {
    ALL: "1 = 1",
    COUNTED: f"NOT ({_IS_UNCOUNTED})",
    COUNTED_OR_REFUSED: f"NOT ({_IS_UNCOUNTED} AND NOT ({_IS_REFUSED}))",
}


class Rows(NamedTuple):
    """Rows of one kind that were created within a window.

    ``kind`` is a key of COLUMNS, ``counts`` is ALL, COUNTED or COUNTED_OR_REFUSED.
    """

    kind: str
    counts: str
    window: timedelta


# A kind, and how long ago a row was created at most.
Window = tuple[str, timedelta]


class Counts(NamedTuple):
    """What may refuse a start. ``created`` has all rows of a window, counted or not.

    ``key_used_at`` is when the idempotency key was used last, and ``braked_until`` the
    end of the brake of the region, which may have passed; or None.
    """

    gate: ProviderGate
    key_used_at: datetime | None
    braked_until: datetime | None
    created: Mapping[Window, int]


def locking(
    using: str, keys: Sequence[str], locked_at: datetime, bounds: Bounds | None
) -> Statement[dict[str, datetime]]:
    """Creates and locks the StartLocks of ``keys``, in that order.

    It answers when those that an operator cleared were cleared. ``bounds`` is what the
    transaction yields.
    """
    table = Table(using, StartLock)
    moment = table.value("locked_at", locked_at)
    return Statement(
        _lock_sql(using, len(keys), bounding_sql(bounds)),
        [each for key in keys for each in (key, moment)],
        partial(_cleared_at, table, keys),
    )


def _cleared_at(
    table: Table[StartLock], keys: Sequence[str], rows: Sequence[Sequence[Any]]
) -> dict[str, datetime]:
    if not table.returns_rows:
        locks = StartLock.objects.filter(key__in=keys)
        return {lock.key: lock.cleared_at for lock in locks if lock.cleared_at}
    read = moment_reader(table.using)
    return {key: read(moment) for key, moment in rows if moment}


@cache
def _lock_sql(using: str, key_count: int, bounded: str) -> str:
    return Table(using, StartLock).upsert_sql(
        ["key", "locked_at"],
        # The first row sets the bounds, before it waits for a lock.
        [f"(%s, {bounded})", *["(%s, %s)"] * (key_count - 1)],
        changed="locked_at",
        returning=["key", "cleared_at"],
    )


def counting(
    using: str,
    start: StartRequest,
    since: Mapping[Window, datetime],
    key_hashes: Sequence[str],
    *,
    has_brake: bool,
) -> Statement[Counts]:
    """Counts the rows of windows, each from its time in ``since`` on, in one SELECT.

    All of them: an index tells how many there are, where most of the table's pages are
    vacuumed, and what became of each row only the table. The brake is looked at only
    with ``has_brake``, since each table takes its time.
    """
    glance = _glance(using, tuple(since), len(key_hashes), has_brake)
    region = [start.region] if has_brake else []
    parameters = [*key_hashes, *glance.parameters(start, since), *region]
    return Statement(glance.sql, parameters, glance.counts)


class _Glance:
    """The SELECT of ``counting`` for ``windows``, and for so many hashes of a key.

    Each row of its result holds the times of the key, of the brake and of the gate,
    then the place of a kind in ``kinds``, the place of a window of that kind, and how
    many rows lie in that window but in no shorter one. Where no row lies in any window,
    one row of the result holds only the times.
    """

    def __init__(
        self, using: str, windows: tuple[Window, ...], key_count: int, has_brake: bool
    ) -> None:
        self.using, self.windows = using, windows
        by_kind = groupby(sorted(windows), itemgetter(0))
        self.kinds = [(kind, list(of_kind)) for kind, of_kind in by_kind]
        self.sql = self._select(key_count, has_brake)

    def _select(self, key_count: int, has_brake: bool) -> str:
        rows, gate, brakes = map(
            self._name, (PhoneVerification, ProviderGate, RegionBrake)
        )
        places = ", ".join(["%s"] * key_count)
        used = f"SELECT MAX(created_at) FROM {rows} WHERE idempotency_key IN ({places})"
        columns = [f"({used})" if key_count else "NULL"]
        columns += ["brake.engaged_until" if has_brake else "NULL"]
        columns += [f"gate.{column}" for column in GATE_COLUMNS]
        counts = " UNION ALL ".join(
            self._counts(place, *each) for place, each in enumerate(self.kinds)
        )
        brake = f"LEFT JOIN {brakes} AS brake ON brake.region = %s" if has_brake else ""
        return (
            f"SELECT {', '.join(columns)}, counts.* FROM (SELECT 1) AS always "
            f"LEFT JOIN {gate} AS gate ON gate.id = {GATE_ID} "
            f"LEFT JOIN ({counts}) AS counts ON 1 = 1 {brake}"
        )

    def _counts(self, kind_place: int, kind: str, windows: list[Window]) -> str:
        longest = len(windows) - 1
        whens = [f"WHEN created_at > %s THEN {place}" for place in range(longest)]
        shortest = f"CASE {' '.join(whens)} ELSE {longest} END" if whens else "0"
        return (
            f"SELECT {kind_place} AS kind, {shortest} AS shortest, COUNT(*) AS number "
            f"FROM {self._name(PhoneVerification)} "
            f"WHERE {COLUMNS[kind]} = %s AND created_at > %s GROUP BY shortest"
        )

    def _name(self, model: type[Model]) -> str:
        return Table(self.using, model).name

    def parameters(
        self, start: StartRequest, since: Mapping[Window, datetime]
    ) -> Iterator[Any]:
        """All but the hashes of the key, which come first, and the region, the last."""
        table = Table(self.using, PhoneVerification)
        adapt = table.connection.ops.adapt_datetimefield_value
        for kind, windows in self.kinds:
            *times, longest = (adapt(since[each]) for each in windows)
            yield from [*times, _value_of(table, start, kind), longest]

    def counts(self, found: Sequence[Sequence[Any]]) -> Counts:
        created = dict.fromkeys(self.windows, 0)
        for row in found:
            kind_place, shortest, number = row[TIMES:]
            if number:
                for each in self.kinds[kind_place][1][shortest:]:
                    created[each] += number
        read = moment_reader(self.using)
        used_at, braked_until, *times = (
            moment and read(moment) for moment in found[0][:TIMES]
        )
        gate = ProviderGate(pk=GATE_ID, **dict(zip(GATE_COLUMNS, times, strict=True)))
        return Counts(gate, used_at, braked_until, created)


_glance = cache(_Glance)


def newest(
    using: str,
    start: StartRequest,
    asked: Sequence[tuple[Rows, range]],
    since: Mapping[Rows, datetime],
    own: uuid.UUID | None = None,
) -> list[list[datetime]]:
    """When the newest rows of all ``asked`` were created, newest first.

    Each range is of places among them, from 0, the newest. With ``own``, the id of a
    row, only this row and those of the user count.
    """
    sql = _newest_sql(using, tuple(asked), is_own=own is not None)
    table, read = Table(using, PhoneVerification), moment_reader(using)
    of_own: list[Any] = []
    if own:
        of_own += [table.value("id", own), table.value("user", start.user_id)]
    parameters: list[Any] = []
    for rows, _places in asked:
        begin = table.value("created_at", since[rows])
        parameters += [_value_of(table, start, rows.kind), begin, *of_own]
    found: list[list[datetime]] = [[] for _each in asked]
    with table.connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        for part, moment in cursor.fetchall():
            found[part].append(read(moment))
    return [sorted(moments, reverse=True) for moments in found]


@cache
def _newest_sql(
    using: str, asked: tuple[tuple[Rows, range], ...], *, is_own: bool
) -> str:
    own = "AND (id = %s OR user_id = %s)" if is_own else ""
    table = Table(using, PhoneVerification).name
    return " UNION ALL ".join(
        f"SELECT {part}, created_at FROM (SELECT created_at FROM {table} "
        f"WHERE {COLUMNS[rows.kind]} = %s AND created_at > %s {own} "
        f"AND {CONDITIONS[rows.counts]} ORDER BY created_at DESC "
        f"LIMIT {len(places)} OFFSET {places.start}) AS part_{part}"
        for part, (rows, places) in enumerate(asked)
    )


def _value_of(table: Table[PhoneVerification], start: StartRequest, kind: str) -> Any:
    value = start.value_of(kind)
    # The others are stored as they are.
    return table.value("user", value) if kind == "user" else value
