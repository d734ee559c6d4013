"""The figures behind the status command and the admin's warnings."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import Count, Min
from django.db.models.functions import Greatest
from django.utils import timezone

from .conf import conf
from .models import ANNOUNCE_PATIENCE, Failure, PhoneVerification, ProviderGate, Status

# A worker takes a row within moments, the sweep within half a minute.
LONG_QUEUED = timedelta(minutes=1)
PAUSES = ("sends", "account", "checks")
# One or two may be chance.
MANY = 3
UNSENT = (Failure.UNKNOWN, Failure.RATE_LIMITED, Failure.UNREACHABLE)
ACCEPTED = {Status.SENT, Status.VERIFIED, Status.EXPIRED, Status.LOCKED}


class Health(NamedTuple):
    """How sending and announcing are going.

    ``pauses`` are what is left of each, zero where there is none. ``outcomes`` counts
    the last hour's rows by failure, else by status. ``troubles`` name what needs a
    person: empty is well.
    """

    queued: int
    oldest_queued: timedelta | None
    oldest_due: timedelta | None
    next_slot_in: timedelta
    pauses: dict[str, timedelta]
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
    queue = rows.filter(status=Status.QUEUED).aggregate(
        depth=Count("pk"), oldest=Min("created_at")
    )
    gate, waiting = ProviderGate.look(), oldest_due()
    outcomes: dict[str, int] = {}
    recent = rows.filter(created_at__gt=now - timedelta(hours=1)).order_by()
    groups = recent.values_list("status", "failure").annotate(count=Count("pk"))
    for status, failure, count in groups:
        outcomes[failure or status] = count
    return Health(
        queued=queue["depth"],
        oldest_queued=now - queue["oldest"] if queue["oldest"] else None,
        oldest_due=waiting,
        next_slot_in=gate.next_slot(now) - now,
        pauses={kind: gate.end_of_pause(kind, now) - now for kind in PAUSES},
        account_faults=gate.account_faults,
        outcomes=outcomes,
        troubles=list(_troubles(now, gate, outcomes, waiting)),
    )


def _troubles(
    now: datetime,
    gate: ProviderGate,
    outcomes: dict[str, int],
    waiting: timedelta | None,
) -> Iterator[str]:
    rows = PhoneVerification.objects.primary()
    if not (conf.API_KEY and conf.API_SECRET):
        yield "key"
    if gate.account_faults or Failure.ACCOUNT in outcomes:
        yield "account"
    failures = sum(outcomes.get(failure, 0) for failure in UNSENT)
    if failures >= MANY and not outcomes.keys() & ACCEPTED:
        yield "failing"
    long_ago = now - LONG_QUEUED
    leases = rows.filter(status=Status.SENDING, lease_until__lte=long_ago)
    unannounced = rows.unannounced().filter(announce_at__lte=long_ago)
    is_stuck = waiting is not None and waiting > LONG_QUEUED
    if is_stuck or leases.exists() or unannounced.exists():
        yield "queue"
    if Failure.TOO_LATE in outcomes:
        yield "late"
    unheard = rows.filter(status=Status.VERIFIED, announced_at=None)
    if unheard.filter(verified_at__lte=now - ANNOUNCE_PATIENCE).exists():
        yield "receivers"
