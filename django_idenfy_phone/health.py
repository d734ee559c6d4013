"""How sending and announcing go: for the status command and the admin's warnings."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Count, Min, TextChoices
from django.db.models.functions import Greatest, Length
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import gate
from .conf import conf
from .heartbeats import DELIVERY, LONGEST_SILENCE, SWEEP
from .models import PhoneVerification, ProviderGate, RegionBrake, primary_alias
from .pacing import Pause
from .records import Heartbeat, Tally
from .statements import first_values
from .statuses import ACCEPTED_STATUSES, Failure, Status
from .tallies import hour_of

# A worker takes a row within a second, the sweep within half a minute.
LONG_QUEUED = timedelta(minutes=1)
# A signal that was lost in a crash is sent again within half of this time.
LONG_UNANNOUNCED = timedelta(minutes=5)
# Fewer failures than this may be chance.
MANY_FAILURES = 3
# Refusals are counted by the hour: those of the hour before still count for this long.
REFUSALS_LINGER = timedelta(minutes=10)
# The limits that refuse starts of many people.
OF_MANY = ("block", "site")
ZERO = timedelta(0)
PROVIDER_FAILURES = (Failure.UNKNOWN, Failure.RATE_LIMITED, Failure.UNREACHABLE)


class Trouble(TextChoices):
    """What needs a person. The label says what to look at."""

    NO_KEY = "key", _("The API key or secret is not set: every start is refused.")
    ACCOUNT = "account", _("iDenfy refuses the account: look at key and credits.")
    FAILING = (
        "failing",
        _("No send succeeded in the last hour: is iDenfy down, or out of reach?"),
    )
    QUEUE = "queue", _("A row waits too long: are worker and sweep running?")
    LATE = "late", _("Rows were not sent in time in the last hour.")
    RECEIVERS = (
        "receivers",
        _("A proof was not announced for 5 minutes: do receivers fail or hang?"),
    )
    SWEEP = "sweep", _("No sweep ran for 2 minutes: is beat or its loop running?")
    DELIVERY = (
        "delivery",
        _("No worker sent or answered for 10 minutes: is one running?"),
    )
    BLOCK = (
        "block",
        _("The limit of a block of numbers refuses starts: the log names the block."),
    )
    SITE = "site", _("The limit of the site refuses starts: an attack, or too low?")
    BRAKE = (
        "brake",
        _("Hardly anybody confirms codes in a region: its brake is engaged."),
    )


class Health(NamedTuple):
    """How sending and announcing go.

    ``oldest_queued`` is the age of the oldest queued row, ``oldest_due`` how long ago
    a row could first have been sent; both are None for an empty queue. ``pauses`` holds
    what is left of each pause, zero where there is none. ``outcomes`` counts the rows
    of the last hour by failure, or by status where they did not fail. ``heartbeats``
    tells how long ago "sweep" and "delivery" last ran, if they ever did.
    ``announce_failure`` is that of a proof that was not announced for long; "" where
    none is known. ``has_network`` is False where the newest start has no client
    network. ``troubles`` is empty where no person is needed.
    """

    queued: int
    oldest_queued: timedelta | None
    oldest_due: timedelta | None
    next_slot_in: timedelta
    pauses: dict[Pause, timedelta]
    account_faults: int
    outcomes: dict[str, int]
    heartbeats: dict[str, timedelta]
    announce_failure: str
    has_network: bool
    troubles: list[Trouble]


class Queue(NamedTuple):
    """How many rows are queued, and the two ages that ``Health`` tells."""

    depth: int
    oldest: timedelta | None
    oldest_due: timedelta | None


def queue() -> Queue:
    """One query."""
    now, due_since = timezone.now(), Greatest("next_send_at", "created_at")
    queued = PhoneVerification.objects.filter(status=Status.QUEUED)
    found = queued.aggregate(
        depth=Count("pk"), oldest=Min("created_at"), due=Min(due_since)
    )
    if not found["depth"]:
        return Queue(0, None, None)
    oldest_due = max(now - found["due"], ZERO)
    return Queue(found["depth"], now - found["oldest"], oldest_due)


def is_too_long(waiting: timedelta | None) -> bool:
    """Whether a row that could have been sent for ``waiting`` needs a person."""
    return waiting is not None and waiting > LONG_QUEUED


def health() -> Health:
    """Look at queue, gate, last hour and whatever else needs a person. Four queries."""
    now = timezone.now()
    waiting, provider_gate, outcomes = queue(), gate.current(), _outcomes(now)
    signs = _signs(now)
    beats = {name: at for name in LONGEST_SILENCE if (at := signs[name])}
    troubles = _troubles(now, provider_gate, outcomes, waiting.oldest_due, signs)
    return Health(
        queued=waiting.depth,
        oldest_queued=waiting.oldest,
        oldest_due=waiting.oldest_due,
        next_slot_in=provider_gate.next_slot(now) - now,
        pauses={each: provider_gate.pause_ends_at(each, now) - now for each in Pause},
        account_faults=provider_gate.account_faults,
        outcomes=outcomes,
        heartbeats={name: max(now - at, ZERO) for name, at in beats.items()},
        announce_failure=signs["failure"] or "",
        has_network=signs["network"] != "",
        troubles=list(troubles),
    )


def _outcomes(now: datetime) -> dict[str, int]:
    """How many rows of the last hour have each failure, or else each status."""
    recent = PhoneVerification.objects.filter(created_at__gt=now - timedelta(hours=1))
    groups = recent.order_by().values_list("status", "failure")
    return {
        failure or status: count
        for status, failure, count in groups.annotate(count=Count("pk"))
    }


def _signs(now: datetime) -> dict[str, Any]:
    """What tells of trouble, None where there is none. One query.

    The start of the oldest row, and the network of the newest. Since when the first
    lease is over, and the first signal is due. When the first proof that was not
    announced for LONG_UNANNOUNCED was verified, and what failed at one. The last sweep
    and the last delivery. A limit that refused starts of many people in this hour; a
    region whose brake is engaged.
    """
    rows, beats = PhoneVerification.objects, Heartbeat.objects.using(primary_alias())
    # An erasure takes the network of a row.
    newest = rows.filter(erased_at=None).order_by("-created_at")
    # By order: PostgreSQL would look for any such row in the whole table.
    unannounced = rows.filter(
        status=Status.VERIFIED, announced_at=None, announce_at__isnull=False
    ).order_by("announced_at", "announce_at")
    proofs = unannounced.filter(verified_at__lte=now - LONG_UNANNOUNCED)
    # By length: PostgreSQL, which expects no failure, would sort all of them.
    named = proofs.annotate(length=Length("announce_failure")).filter(length__gt=0)
    leases = rows.filter(status=Status.SENDING).order_by("lease_until")
    refused = Tally.objects.using(primary_alias()).filter(
        name=Tally.Name.REFUSED, hour__gte=hour_of(now - REFUSALS_LINGER)
    )
    signs = {
        "start": rows.order_by("created_at").values("created_at"),
        "network": newest.values("network"),
        "lease": leases.values("lease_until"),
        "signal": unannounced.values("announce_at"),
        "proof": proofs.values("verified_at"),
        "failure": named.values("announce_failure"),
        "brake": RegionBrake.objects.filter(engaged_until__gt=now).values("region"),
    }
    signs |= {
        name: beats.filter(name=name).values("beat_at") for name in LONGEST_SILENCE
    }
    signs |= {kind: refused.filter(reason=kind).values("reason") for kind in OF_MANY}
    return first_values(primary_alias(), signs)


def _troubles(
    now: datetime,
    provider_gate: ProviderGate,
    outcomes: dict[str, int],
    oldest_due: timedelta | None,
    signs: dict[str, Any],
) -> Iterator[Trouble]:
    failures = sum(outcomes.get(failure, 0) for failure in PROVIDER_FAILURES)
    has_sent = bool(outcomes.keys() & set(ACCEPTED_STATUSES))
    overdue = max(now - (signs[name] or now) for name in ("lease", "signal"))
    # What never ran is missed from the first start on.
    silent = {
        name
        for name, longest in LONGEST_SILENCE.items()
        if now - (signs[name] or signs["start"] or now) > longest
    }
    found = {
        Trouble.NO_KEY: not conf.has_credentials,
        Trouble.ACCOUNT: provider_gate.account_faults or Failure.ACCOUNT in outcomes,
        Trouble.FAILING: failures >= MANY_FAILURES and not has_sent,
        Trouble.QUEUE: is_too_long(oldest_due) or overdue >= LONG_QUEUED,
        Trouble.LATE: Failure.TOO_LATE in outcomes,
        Trouble.RECEIVERS: signs["proof"],
        Trouble.SWEEP: SWEEP in silent,
        # Without a sweep, no worker is pinged.
        Trouble.DELIVERY: signs[SWEEP] and silent == {DELIVERY},
        Trouble.BLOCK: signs["block"],
        Trouble.SITE: signs["site"],
        Trouble.BRAKE: conf.BRAKE and signs["brake"] is not None,
    }
    return (trouble for trouble, is_found in found.items() if is_found)
