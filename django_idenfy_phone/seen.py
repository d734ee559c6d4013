"""What a caller sees of a verification, read alone or by the UPDATE of a check.

A caller's own rows are the row itself and all rows of the user. Those of other people
may refuse a start too, but nothing of them is shown.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from django.db.models.expressions import RawSQL
from django.utils import timezone

from . import gate, limits, pacing
from .conf import conf
from .models import GATE_ID, PhoneVerification, ProviderGate, primary_alias
from .pacing import Pause
from .statements import Table, moment_reader
from .statuses import Status
from .transactions import durable_commit, durable_statement, retry_on_abort
from .transitions import CHECK_LEASE


class Seen(NamedTuple):
    """The caller's ``row``, and whether the user ``has_others`` that limits may count.

    ``checks_paused_until`` is as it is stored in the gate.
    """

    row: PhoneVerification
    has_others: bool = False
    checks_paused_until: datetime | None = None


def read(pk: uuid.UUID, user_id: Any) -> Seen | None:
    """One SELECT; ``user_id`` is the caller's. Returns None for an unknown id."""
    rows, gates = _tables()
    sql = (
        f"SELECT {_columns(rows)}, "
        f"(SELECT checks_paused_until FROM {gates} WHERE id = {GATE_ID}) "
        f"FROM {rows.name} WHERE id = %s"
    )
    found = _run(rows, sql, [*_of_others(rows, pk, user_id), rows.value("id", pk)])
    if found is None:
        return None
    *values, has_others, paused_until = found
    paused_until = paused_until and moment_reader(rows.using)(paused_until)
    return Seen(rows.instance(values), bool(has_others), paused_until)


def begin_check(pk: uuid.UUID, user_id: Any) -> Seen | None:
    """T7: spend a check of a row that this caller may see, while checks are not paused.

    One UPDATE that returns the row on PostgreSQL, else a SELECT and an UPDATE of the
    row as it was read. Returns None where no check could begin.
    """
    if _tables()[0].updates_and_returns:
        return retry_on_abort(partial(_update, pk, user_id), primary_alias())
    return _read_and_update(pk, user_id)


def _read_and_update(pk: uuid.UUID, user_id: Any) -> Seen | None:
    seen = read(pk, user_id)
    if seen is None or not seen.row.is_shown_to(user_id):
        return None
    is_paused = gate.time_to_checks(seen.checks_paused_until, timezone.now())
    has_begun = not is_paused and PhoneVerification.objects.begin_check(seen.row)
    return seen if has_begun else None


def _update(pk: uuid.UUID, user_id: Any) -> Seen | None:
    """The conditions of ``_read_and_update`` in SQL; ``test_seen`` compares the two."""
    (rows, gates), now = _tables(), timezone.now()
    lease, moment, latest = (
        rows.value("checking_until", each)
        for each in (now + CHECK_LEASE, now, pacing.latest_end(Pause.CHECKS, now))
    )
    is_shown = "user_id IS NULL AND is_anonymous AND redeemed_at IS NULL"
    refunded_before = f"SELECT checks_refunded FROM {rows.name} WHERE id = %s"
    paused = "checks_paused_until > %s AND checks_paused_until <= %s"
    where: list[tuple[str, list[Any]]] = [
        ("id = %s", [rows.value("id", pk)]),
        (f"(user_id = %s OR ({is_shown}))", [rows.value("user", user_id)]),
        (f"status = '{Status.SENT.value}'", []),
        ("expires_at > %s", [moment]),
        ("(checking_until IS NULL OR checking_until <= %s)", [moment]),
        ("checks < checks_refunded + %s", [conf.MAX_CHECKS]),
        ("checks < %s", [2 * conf.MAX_CHECKS]),
        (
            f"NOT EXISTS (SELECT 1 FROM {gates} WHERE id = {GATE_ID} AND {paused})",
            [moment, latest],
        ),
        # A refund that came meanwhile may have come with a pause: after a wait for the
        # row, PostgreSQL reads its columns again, but nothing else.
        (f"checks_refunded = ({refunded_before})", [rows.value("id", pk)]),
    ]
    with durable_statement(rows.using) as bounds:
        always_true = (bounds, durable_commit(rows.using))
        where += [(each.sql, []) for each in always_true if isinstance(each, RawSQL)]
        sql = (
            f"UPDATE {rows.name} SET checks = checks + 1, checking_until = %s "
            f"WHERE {' AND '.join(term for term, _values in where)} "
            f"RETURNING {_columns(rows)}"
        )
        of_where = [value for _term, values in where for value in values]
        found = _run(rows, sql, [lease, *of_where, *_of_others(rows, pk, user_id)])
    if found is None:
        return None
    *values, has_others = found
    return Seen(rows.instance(values), bool(has_others))


def _tables() -> tuple[Table[PhoneVerification], str]:
    """The table of verifications, and the name of that of the gate."""
    using = primary_alias()
    return Table(using, PhoneVerification), Table(using, ProviderGate).name


def _columns(rows: Table[PhoneVerification]) -> str:
    """What is read of a row, and whether its user has others."""
    return (
        f"{', '.join(rows.columns)}, "
        # Without a login, user_id is NULL, which equals nothing.
        f"EXISTS (SELECT 1 FROM {rows.name} AS other WHERE other.user_id = %s "
        "AND other.id <> %s AND other.created_at > %s)"
    )


def _of_others(
    rows: Table[PhoneVerification], pk: uuid.UUID, user_id: Any
) -> list[Any]:
    """The parameters of ``_columns``."""
    since = timezone.now() - limits.longest_window()
    values = {"user": user_id, "id": pk, "created_at": since}
    return [rows.value(name, value) for name, value in values.items()]


def _run(
    rows: Table[PhoneVerification], sql: str, parameters: Sequence[Any]
) -> Sequence[Any] | None:
    """The one row that a statement returns, None for none."""
    with rows.connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found: list[Sequence[Any]] = cursor.fetchall()
    return found[0] if found else None
