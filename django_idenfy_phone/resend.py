"""When another start makes sense for a caller, as the caller's own rows tell."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone

from . import limits
from .conf import conf
from .look import Counts
from .models import PhoneVerification
from .seen import Seen
from .starting import StartRequest


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
    if start.user_id is not None and limits.is_near(start, counts.created):
        return None
    return resend_at(Seen(row), start.user_id)
