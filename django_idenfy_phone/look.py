"""What a start asks the database, as SQL that is built once and kept.

By hand, since the ORM would build a dozen statements anew for each start.
``take_locks`` takes the locks, ``glance`` counts all that may refuse the start, and
``newest`` tells exactly until when, only where something does. Locks and counts stay
two statements: in one, the counts would come from before the wait for a lock.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from django.db import connections
from django.db.models.constants import OnConflict

from .models import GATE_ID, PhoneVerification, ProviderGate, StartLock
from .starting import StartRequest
from .statements import moment_reader, table_of, value_of
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


class Counts(NamedTuple):
    """How many ``rows`` there are.

    ``key_used_at`` is when the idempotency key was used last, or None.
    """

    gate: ProviderGate
    key_used_at: datetime | None
    rows: Mapping[Rows, int]


def take_locks(
    using: str, keys: Sequence[str], locked_at: datetime, bounds: Bounds | None
) -> dict[str, datetime]:
    """Create and lock the StartLocks of ``keys``, in that order.

    Returns when those that an operator cleared were cleared. ``bounds`` is what the
    transaction yields.
    """
    connection = connections[using]
    moment = connection.ops.adapt_datetimefield_value(locked_at)
    parameters = [each for key in keys for each in (key, moment)]
    with connection.cursor() as cursor:
        cursor.execute(_lock_sql(using, len(keys), bounding_sql(bounds)), parameters)
        if not connection.features.can_return_rows_from_bulk_insert:
            locks = StartLock.objects.filter(key__in=keys)
            return {lock.key: lock.cleared_at for lock in locks if lock.cleared_at}
        rows = cursor.fetchall()
    read = moment_reader(using)
    return {key: read(moment) for key, moment in rows if moment}


@cache
def _lock_sql(using: str, keys: int, bounded: str) -> str:
    connection = connections[using]
    names = [StartLock._meta.db_table, "key", "locked_at", "cleared_at"]
    table, key, locked_at, cleared_at = map(connection.ops.quote_name, names)
    # The first row sets the bounds, before it waits for a lock.
    values = [f"(%s, {bounded})", *["(%s, %s)"] * (keys - 1)]
    on_conflict = connection.ops.on_conflict_suffix_sql(
        [StartLock._meta.get_field(name) for name in ("key", "locked_at")],
        OnConflict.UPDATE,
        ["locked_at"],
        ["key"],
    )
    can_return = connection.features.can_return_rows_from_bulk_insert
    returning = f"RETURNING {key}, {cleared_at}" if can_return else ""
    columns = f"({key}, {locked_at})"
    return (
        f"INSERT INTO {table} {columns} VALUES {', '.join(values)} "
        f"{on_conflict} {returning}"
    )


def glance(
    using: str,
    start: StartRequest,
    since: Mapping[Rows, datetime],
    key_hashes: Sequence[str],
) -> Counts:
    """Count rows, each kind of them from its time in ``since`` on, in one SELECT."""
    by_kind = _by_kind(tuple(since))
    adapt = connections[using].ops.adapt_datetimefield_value
    parameters: list[Any] = list(key_hashes)
    for kind, rows in by_kind.items():
        parameters += [adapt(since[each]) for each in rows]
        earliest = min(since[each] for each in rows)
        parameters += [_value_of(using, start, kind), adapt(earliest)]
    with connections[using].cursor() as cursor:
        cursor.execute(_glance_sql(using, tuple(since), len(key_hashes)), parameters)
        key_used_at, *found = cursor.fetchone()
    read, width = moment_reader(using), len(GATE_COLUMNS)
    times = [moment and read(moment) for moment in found[:width]]
    asked = [each for rows in by_kind.values() for each in rows]
    return Counts(
        ProviderGate(pk=GATE_ID, **dict(zip(GATE_COLUMNS, times, strict=True))),
        key_used_at and read(key_used_at),
        dict(zip(asked, found[width:], strict=True)),
    )


@cache
def _glance_sql(using: str, asked: tuple[Rows, ...], keys: int) -> str:
    """One row: the time of the key, those of the gate, then a count for each Rows."""
    table = table_of(using, PhoneVerification)
    gate = table_of(using, ProviderGate)
    key = "SELECT MAX(created_at) FROM {} WHERE idempotency_key IN ({})"
    used = key.format(table, ", ".join(["%s"] * keys)) if keys else "SELECT NULL"
    times = ", ".join(f"gate.{column}" for column in GATE_COLUMNS)
    joins = ""
    for kind, rows in _by_kind(asked).items():
        counts = ", ".join(
            f"COUNT(CASE WHEN created_at > %s AND {CONDITIONS[each.counts]} THEN 1 END)"
            f" AS count_{number}"
            for number, each in enumerate(rows)
        )
        joins += (
            f" CROSS JOIN (SELECT {counts} FROM {table} "
            f"WHERE {COLUMNS[kind]} = %s AND created_at > %s) AS of_{kind}"
        )
    found = ", ".join(f"of_{kind}.*" for kind in _by_kind(asked))
    return (
        f"SELECT used.created_at, {times}, {found} "
        f"FROM (SELECT ({used}) AS created_at) AS used "
        f"LEFT JOIN {gate} AS gate ON gate.id = {GATE_ID}{joins}"
    )


@cache
def _by_kind(asked: tuple[Rows, ...]) -> dict[str, list[Rows]]:
    kinds = dict.fromkeys(each.kind for each in asked)
    return {kind: [each for each in asked if each.kind == kind] for kind in kinds}


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
    adapt, read = connections[using].ops.adapt_datetimefield_value, moment_reader(using)
    parameters: list[Any] = []
    for rows, _places in asked:
        parameters += [_value_of(using, start, rows.kind), adapt(since[rows])]
        if own:
            parameters += [
                value_of(using, PhoneVerification, "id", own),
                value_of(using, PhoneVerification, "user", start.user_id),
            ]
    with connections[using].cursor() as cursor:
        sql = _newest_sql(using, tuple(asked), is_own=own is not None)
        cursor.execute(sql, parameters)
        found = [(number, read(moment)) for number, moment in cursor.fetchall()]
    return [
        sorted((moment for number, moment in found if number == part), reverse=True)
        for part in range(len(asked))
    ]


@cache
def _newest_sql(
    using: str, asked: tuple[tuple[Rows, range], ...], *, is_own: bool
) -> str:
    own = "AND (id = %s OR user_id = %s)" if is_own else ""
    table = table_of(using, PhoneVerification)
    return " UNION ALL ".join(
        f"SELECT {part}, created_at FROM (SELECT created_at FROM {table} "
        f"WHERE {COLUMNS[rows.kind]} = %s AND created_at > %s {own} "
        f"AND {CONDITIONS[rows.counts]} ORDER BY created_at DESC "
        f"LIMIT {len(places)} OFFSET {places.start}) AS part_{part}"
        for part, (rows, places) in enumerate(asked)
    )


def _value_of(using: str, start: StartRequest, kind: str) -> Any:
    return value_of(using, PhoneVerification, FIELDS[kind], start.value_of(kind))
