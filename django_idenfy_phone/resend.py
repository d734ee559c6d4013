"""What a caller sees of a verification, and when another start makes sense.

A caller's own rows are the row itself and all rows of the user. Those of other people
may refuse a start too, but nothing of them is shown.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Case, Q, Subquery, Value, When
from django.utils import timezone

from . import limits
from .conf import conf
from .look import ALL, COLUMNS, COUNTED_OR_REFUSED, Counts
from .models import GATE_ID, PhoneVerification, ProviderGate
from .starting import StartRequest
from .transitions import PhoneVerificationQuerySet

Rows = Sequence[PhoneVerification]

# With a row come so many of the user's rows at most. All come where there are more.
MANY = 50


class Seen(NamedTuple):
    """The caller's ``row``, and all own rows that limits may count, newest first.

    ``checks_paused_until`` is as it is stored in the gate.
    """

    row: PhoneVerification
    own_rows: Rows
    checks_paused_until: datetime | None


def read(rows: PhoneVerificationQuerySet, pk: uuid.UUID, user_id: Any) -> Seen | None:
    """One SELECT. Returns None where ``rows``, which the caller may see, lack it."""
    wanted = Q(pk=pk)
    if user_id is not None:
        since = timezone.now() - limits.longest_window()
        wanted |= Q(user_id=user_id, created_at__gt=since)
    gate = ProviderGate.objects.filter(pk=GATE_ID)
    found = (
        rows.filter(wanted)
        .annotate(checks_paused_until=Subquery(gate.values("checks_paused_until")))
        .order_by(Case(When(pk=pk, then=Value(0)), default=Value(1)), "-created_at")
    )
    own_rows = list(found[: MANY + 1])
    if len(own_rows) > MANY:
        own_rows = list(found)
    if not own_rows or own_rows[0].pk != pk:
        return None
    row = own_rows[0]
    own_rows.sort(key=lambda each: each.created_at, reverse=True)
    return Seen(row, own_rows, vars(row)["checks_paused_until"])


def resend_at(seen: Seen, user_id: Any, cleared_at: datetime | None = None) -> datetime:
    """When the caller may start again for this number, as the own rows tell.

    Those of the number that are older than ``cleared_at`` do not count.
    """
    row, own_rows, _pause = seen
    own = {
        kind: _of_kind(kind, row, own_rows, user_id)
        for kind in limits.kinds(user_id, row.network)
    }
    if cleared_at:
        own["number"] = [each for each in own["number"] if each.created_at > cleared_at]
    sends = _times(own["number"], limits.SENDS_OF_DAY.counts)
    ends = list(limits.cooldown_ends(_times(own["number"], ALL)[:1], sends))
    for kind, rows in own.items():
        for limit in conf.SEND_LIMITS[kind]:
            counted = _times(rows, limits.rows_of(kind, limit).counts)
            ends += [each + limit.window for each in counted[limit.sends - 1 :][:1]]
    return max(ends, default=row.created_at)


def _of_kind(kind: str, row: PhoneVerification, own_rows: Rows, user_id: Any) -> Rows:
    if kind == "site":
        return own_rows
    value = user_id if kind == "user" else getattr(row, COLUMNS[kind])
    return [each for each in own_rows if getattr(each, COLUMNS[kind]) == value]


def _times(rows: Rows, counts: str) -> list[datetime]:
    return [
        each.created_at
        for each in rows
        if counts == ALL
        or each.is_counted(with_account_refusals=counts == COUNTED_OR_REFUSED)
    ]


def of_first_start(
    start: StartRequest, row: PhoneVerification, counts: Counts
) -> datetime | None:
    """``resend_at`` of a new row; None where earlier rows of its user may matter."""
    if start.user_id is not None and limits.is_near(start, counts.rows):
        return None
    return resend_at(Seen(row, [row], None), start.user_id)
