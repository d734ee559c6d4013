"""What a caller sees of a verification, and when another start makes sense.

A caller's own rows are the row itself and all rows of the user. Those of other people
may refuse a start too, but nothing of them is shown.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Exists, Q, Subquery, Value
from django.utils import timezone

from . import limits
from .conf import conf
from .look import ALL, COUNTED_OR_REFUSED, Counts
from .models import GATE_ID, PhoneVerification, ProviderGate
from .starting import StartRequest
from .transitions import PhoneVerificationQuerySet

Rows = Sequence[PhoneVerification]


class Seen(NamedTuple):
    """The caller's ``row``, and all own rows of its number, newest first.

    ``checks_paused_until`` is as it is stored in the gate. ``is_frequent`` tells
    whether the user has so many rows that limits of other kinds may matter.
    """

    row: PhoneVerification
    own_rows: Rows
    checks_paused_until: datetime | None = None
    is_frequent: bool = False


def read(rows: PhoneVerificationQuerySet, pk: uuid.UUID, user_id: Any) -> Seen | None:
    """One SELECT. Returns None where ``rows``, which the caller may see, lack it."""
    wanted = Q(pk=pk)
    is_frequent: Exists | Value = Value(False)
    if user_id is not None:
        since = timezone.now() - limits.longest_window()
        own = PhoneVerification.objects.filter(user_id=user_id, created_at__gt=since)
        number = PhoneVerification.objects.filter(pk=pk).values("phone_number")
        wanted |= Q(
            user_id=user_id, created_at__gt=since, phone_number=Subquery(number)
        )
        # So many with the row itself, which may be a visitor's.
        fewest = max(2, limits.fewest_sends())
        is_frequent = Exists(own.exclude(pk=pk)[fewest - 2 : fewest - 1])
    gate = ProviderGate.objects.filter(pk=GATE_ID)
    found = rows.filter(wanted).annotate(
        checks_paused_until=Subquery(gate.values("checks_paused_until")),
        is_frequent=is_frequent,
    )
    own_rows = sorted(found, key=lambda each: each.created_at, reverse=True)
    for row in own_rows:
        if row.pk == pk:
            facts = vars(row)
            return Seen(
                row, own_rows, facts["checks_paused_until"], facts["is_frequent"]
            )
    return None


def resend_at(seen: Seen, user_id: Any, cleared_at: datetime | None = None) -> datetime:
    """When the caller may start again for this number, as the own rows tell.

    Those of the number that are older than ``cleared_at`` do not count.
    """
    row = seen.row
    if seen.is_frequent:
        ends = limits.ends_of_own_rows(row, user_id, cleared_at)
        return max(ends, default=row.created_at)
    of_number = [
        each for each in seen.own_rows if not cleared_at or each.created_at > cleared_at
    ]
    sends = _times(of_number, limits.SENDS_OF_DAY.counts)
    ends = list(limits.cooldown_ends(_times(of_number, ALL)[:1], sends))
    for kind in limits.kinds(user_id, row.network):
        for limit in conf.SEND_LIMITS[kind]:
            rows = of_number if kind == "number" else [row]
            counted = _times(rows, limits.rows_of(kind, limit).counts)
            ends += [each + limit.window for each in counted[limit.sends - 1 :][:1]]
    return max(ends, default=row.created_at)


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
    return resend_at(Seen(row, [row]), start.user_id)
