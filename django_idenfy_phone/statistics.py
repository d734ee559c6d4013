"""The figures behind the status command and the admin's warnings."""

from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import Count, Min
from django.db.models.functions import Greatest
from django.utils import timezone

from .announce import PATIENCE
from .models import Failure, PhoneVerification, ProviderGate, Status

# A worker takes a row within moments, the sweep within half a minute.
LONG_QUEUED = timedelta(minutes=1)


class Health(NamedTuple):
    """How sending and announcing are going.

    ``outcomes`` counts the last hour's rows by failure, else by status. ``troubles``
    name what needs a person: empty is well.
    """

    queued: int
    oldest_due: timedelta | None
    sends_paused_until: datetime | None
    account_paused_until: datetime | None
    checks_paused_until: datetime | None
    account_faults: int
    outcomes: dict[str, int]
    troubles: list[str]


def oldest_due() -> timedelta | None:
    """How long the queued row that waits longest could have been sent already."""
    queued = PhoneVerification.objects.primary().filter(status=Status.QUEUED)
    due_since = Greatest("next_send_at", "created_at")
    first = queued.aggregate(first=Min(due_since))["first"]
    return max(timezone.now() - first, timedelta(0)) if first else None


def health() -> Health:
    now = timezone.now()
    rows = PhoneVerification.objects.primary()
    waiting = oldest_due()
    gate = ProviderGate.look()
    outcomes: dict[str, int] = {}
    recent = rows.filter(created_at__gt=now - timedelta(hours=1)).order_by()
    groups = recent.values_list("status", "failure").annotate(count=Count("pk"))
    for status, failure, count in groups:
        outcomes[failure or status] = count
    unheard = rows.filter(
        status=Status.VERIFIED, announced_at=None, verified_at__lte=now - PATIENCE
    )
    troubles = {
        "account": bool(gate.account_faults) or Failure.ACCOUNT in outcomes,
        "queue": waiting is not None and waiting > LONG_QUEUED,
        "late": Failure.TOO_LATE in outcomes,
        "receivers": unheard.exists(),
    }
    return Health(
        queued=rows.filter(status=Status.QUEUED).count(),
        oldest_due=waiting,
        sends_paused_until=gate.sends_paused_until,
        account_paused_until=gate.account_paused_until,
        checks_paused_until=gate.checks_paused_until,
        account_faults=gate.account_faults,
        outcomes=outcomes,
        troubles=[name for name, is_true in troubles.items() if is_true],
    )
