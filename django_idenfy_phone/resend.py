"""What a caller sees of a verification, and when another start makes sense.

A caller's own rows are the row itself and all rows of the user. Those of other people
may refuse a start too, but nothing of them is shown.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.utils import timezone

from . import limits
from .conf import conf
from .look import Counts
from .models import GATE_ID, PhoneVerification, ProviderGate, primary_alias
from .starting import StartRequest
from .statements import Table, moment_reader


class Seen(NamedTuple):
    """The caller's ``row``, and whether the user ``has_others`` that limits may count.

    ``checks_paused_until`` is as it is stored in the gate.
    """

    row: PhoneVerification
    has_others: bool = False
    checks_paused_until: datetime | None = None


def read(pk: uuid.UUID, user_id: Any) -> Seen | None:
    """One SELECT; ``user_id`` is the caller's. Returns None for an unknown id."""
    using, since = primary_alias(), timezone.now() - limits.longest_window()
    rows, gate = Table(using, PhoneVerification), Table(using, ProviderGate).name
    value = rows.value
    sql = (
        f"SELECT {', '.join(rows.columns)}, "
        # Without a login, user_id is NULL, which equals nothing.
        f"EXISTS (SELECT 1 FROM {rows.name} AS other WHERE other.user_id = %s "
        "AND other.id <> %s AND other.created_at > %s), "
        f"(SELECT checks_paused_until FROM {gate} WHERE id = {GATE_ID}) "
        f"FROM {rows.name} WHERE id = %s"
    )
    with rows.connection.cursor() as cursor:
        of_others = value("user", user_id), value("id", pk), value("created_at", since)
        cursor.execute(sql, [*of_others, value("id", pk)])
        found = cursor.fetchone()
    if found is None:
        return None
    *values, has_others, paused_until = found
    paused_until = paused_until and moment_reader(using)(paused_until)
    return Seen(rows.instance(values), bool(has_others), paused_until)


def resend_at(
    seen: Seen, user_id: Any, cleared_at: Mapping[str, datetime] | None = None
) -> datetime:
    """When the caller may start again for this number, as the own rows tell.

    Those of each kind that are older than its time in ``cleared_at`` do not count.
    """
    cleared_at = cleared_at or {}
    row = seen.row
    if seen.has_others:
        ends = limits.ends_of_own_rows(row, user_id, cleared_at)
    else:
        ends = _ends_of_one_row(row, user_id, cleared_at)
    return max(ends, default=row.created_at)


def _ends_of_one_row(
    row: PhoneVerification, user_id: Any, cleared_at: Mapping[str, datetime]
) -> list[datetime]:
    created_at = row.created_at
    cleared = {kind for kind, moment in cleared_at.items() if created_at <= moment}
    sends = [created_at] if row.is_counted() else []
    ends = list(limits.cooldown_ends([created_at], sends))
    if "number" in cleared:
        ends = []
    for kind in set(limits.kinds(user_id, row.network)) - cleared:
        for limit in conf.limits_of(kind):
            with_refusals = limits.counts_refusals(kind, limit)
            if limit.sends == 1 and row.is_counted(with_account_refusals=with_refusals):
                ends.append(created_at + limit.window)
    return ends


def of_number(
    rows: Sequence[PhoneVerification], cleared_at: datetime | None
) -> datetime:
    """When the number of the first row allows a start, as far as these rows tell."""
    number, day_ago = rows[0].phone_number, timezone.now() - limits.DAY
    known = [
        row
        for row in sorted(rows, key=lambda row: row.created_at, reverse=True)
        if row.phone_number == number
        and (cleared_at is None or row.created_at > cleared_at)
    ]
    newest = [row.created_at for row in known]
    counted = [row.created_at for row in known if row.is_counted()]
    sends = [moment for moment in counted if moment > day_ago]
    ends = list(limits.cooldown_ends(newest, sends))
    for limit in conf.limits_of("number"):
        nth_newest = counted[limit.sends - 1 : limit.sends]
        ends += [moment + limit.window for moment in nth_newest]
    return max(ends, default=rows[0].created_at)


def of_first_start(
    start: StartRequest, row: PhoneVerification, counts: Counts
) -> datetime | None:
    """``resend_at`` of a new row; None where earlier rows of its user may matter."""
    if start.user_id is not None and limits.is_near(start, counts.rows):
        return None
    return resend_at(Seen(row), start.user_id)
