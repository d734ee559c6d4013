"""What a start asks the database, as SQL that is built once and kept.

By hand, since the ORM would build a dozen statements anew for each start. The first
statement takes the locks, the second brings back all that can refuse. They stay two: in
one, the counts would come from before the wait for a lock.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import DateTimeField, Value
from django.db.models.constants import OnConflict

from .models import GATE_ID, PhoneVerification, ProviderGate, StartLock
from .starting import StartRequest
from .statuses import KEY_REFUSED, UNCOUNTED_FAILURES, Failure, Status
from .transactions import Bounds, bounding_sql

COLUMNS = {
    "number": "phone_number",
    "block": "number_block",
    "user": "user_id",
    "network": "network",
}
GATE_COLUMNS = (
    "theoretical_arrival_at",
    "sent_arrival_at",
    "sends_paused_until",
    "account_paused_until",
)

# Which rows of a kind: the same as PhoneVerificationQuerySet.is_counted, in SQL.
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
    ALL: "",
    COUNTED: f"AND NOT ({_IS_UNCOUNTED})",
    COUNTED_OR_REFUSED: f"AND NOT ({_IS_UNCOUNTED} AND NOT ({_IS_REFUSED}))",
}


class Newest(NamedTuple):
    """Asks when the newest rows of a kind were created, within a window.

    ``first`` and ``last`` count from 1, the newest. ``rows`` is ALL, COUNTED or
    COUNTED_OR_REFUSED.
    """

    kind: str
    rows: str
    window: timedelta
    first: int
    last: int


class Found(NamedTuple):
    """``created_at`` has the times for each Newest, newest first.

    ``key_used_at`` is when the idempotency key was used last, or None.
    """

    gate: ProviderGate
    created_at: Mapping[Newest, Sequence[datetime]]
    key_used_at: datetime | None


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
    can_return = connection.features.can_return_rows_from_bulk_insert
    with connection.cursor() as cursor:
        cursor.execute(_lock_sql(using, len(keys), bounding_sql(bounds)), parameters)
        if not can_return:
            cursor.execute(_clearings_sql(using, len(keys)), keys)
        read = _reader(connection)
        return {key: read(moment) for key, moment in cursor.fetchall() if moment}


@cache
def _lock_sql(using: str, keys: int, bounded: str) -> str:
    connection = connections[using]
    table, key, locked_at, cleared_at = _names(
        using, StartLock._meta.db_table, "key", "locked_at", "cleared_at"
    )
    # The bounds are set by the first row, before it waits for a lock.
    values = [f"(%s, {bounded})", *["(%s, %s)"] * (keys - 1)]
    fields = [StartLock._meta.get_field(name) for name in ("key", "locked_at")]
    on_conflict = connection.ops.on_conflict_suffix_sql(
        fields, OnConflict.UPDATE, ["locked_at"], ["key"]
    )
    sql = (
        f"INSERT INTO {table} ({key}, {locked_at}) VALUES {', '.join(values)} "
        f"{on_conflict}"
    )
    if connection.features.can_return_rows_from_bulk_insert:
        sql += f" RETURNING {key}, {cleared_at}"
    return sql


@cache
def _clearings_sql(using: str, keys: int) -> str:
    table, key, cleared_at = _names(
        using, StartLock._meta.db_table, "key", "cleared_at"
    )
    return f"SELECT {key}, {cleared_at} FROM {table} WHERE {key} IN ({_marks(keys)})"


def look(
    using: str,
    start: StartRequest,
    asked: Sequence[Newest],
    since: Mapping[Newest, datetime],
    key_hashes: Sequence[str],
) -> Found:
    """Bring back all that can refuse a start, in one SELECT.

    ``since`` is when the window of each Newest begins.
    """
    connection = connections[using]
    user = PhoneVerification._meta.get_field("user")
    values = {
        "number": start.phone_number,
        "block": start.number_block,
        "user": user.get_db_prep_value(start.user_id, connection),
        "network": start.network,
    }
    parameters = list(key_hashes)
    for each in asked:
        moment = connection.ops.adapt_datetimefield_value(since[each])
        parameters += [values[each.kind], moment]
    with connection.cursor() as cursor:
        cursor.execute(_look_sql(using, tuple(asked), len(key_hashes)), parameters)
        rows = cursor.fetchall()
    return _found(asked, rows, _reader(connection))


def _found(
    asked: Sequence[Newest],
    rows: Sequence[Sequence[Any]],
    read: Callable[[Any], datetime],
) -> Found:
    gate_times = [moment and read(moment) for moment in rows[0][2:]]
    parts: list[list[datetime]] = [[] for _ in range(len(asked) + 1)]
    for part, moment, *_gate in rows:
        if part is not None:
            parts[part].append(read(moment))
    key_used_at, *newest = parts
    return Found(
        ProviderGate(pk=GATE_ID, **dict(zip(GATE_COLUMNS, gate_times, strict=True))),
        {
            each: sorted(times, reverse=True)
            for each, times in zip(asked, newest, strict=True)
        },
        max(key_used_at, default=None),
    )


@cache
def _look_sql(using: str, asked: tuple[Newest, ...], keys: int) -> str:
    """A row for each time: its part (0: the key, then each Newest), and the gate's.

    One row without a part where there are no times.
    """
    rows, gate = _names(
        using, PhoneVerification._meta.db_table, ProviderGate._meta.db_table
    )
    parts = [
        f"SELECT {number} AS part, created_at FROM (SELECT created_at FROM {rows} "
        f"WHERE {COLUMNS[each.kind]} = %s AND created_at > %s {CONDITIONS[each.rows]} "
        f"ORDER BY created_at DESC LIMIT {each.last - each.first + 1} "
        f"OFFSET {each.first - 1}) AS part{number}"
        for number, each in enumerate(asked, start=1)
    ]
    if keys:
        parts.insert(
            0,
            f"SELECT 0 AS part, created_at FROM {rows} "
            f"WHERE idempotency_key IN ({_marks(keys)})",
        )
    times = ", ".join(f"gate.{column}" for column in GATE_COLUMNS)
    return (
        f"SELECT found.part, found.created_at, {times} "
        f"FROM (SELECT 1 AS one) AS one_row "
        f"LEFT JOIN {gate} AS gate ON gate.id = {GATE_ID} "
        f"LEFT JOIN ({' UNION ALL '.join(parts)}) AS found ON 1 = 1"
    )


def _names(using: str, *names: str) -> list[str]:
    return [connections[using].ops.quote_name(name) for name in names]


def _marks(count: int) -> str:
    return ", ".join(["%s"] * count)


def _reader(connection: Any) -> Callable[[Any], datetime]:
    """Makes an aware datetime of what the database's driver returns."""
    expression = Value(None, output_field=DateTimeField())
    converters = connection.ops.get_db_converters(expression)

    def read(value: Any) -> datetime:
        for convert in converters:
            value = convert(value, expression, connection)
        return value

    return read
