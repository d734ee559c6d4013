"""How sending and announcing go: for the status command and the admin's warnings."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple, TypeGuard

from django.db.models import Count, Min, TextChoices
from django.db.models.functions import Greatest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import brake, gate, heartbeats
from .conf import conf
from .heartbeats import DELIVERY, SWEEP
from .models import PhoneVerification, ProviderGate, primary_alias
from .pacing import Pause
from .records import Tally
from .statuses import ACCEPTED_STATUSES, Failure, Status
from .tallies import hour_of

# A worker takes a row within a second, the sweep within half a minute.
LONG_QUEUED = timedelta(minutes=1)
# A signal that was lost in a crash is sent again within half of this time.
LONG_UNANNOUNCED = timedelta(minutes=5)
# Fewer failures than this may be chance.
MANY_FAILURES = 3
# Refusals are counted by the hour: those of the last hour are recent for so long.
REFUSALS_LINGER = timedelta(minutes=10)
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
    tells how long ago "sweep" and "delivery" last ran, if they ever did. ``troubles``
    is empty where no person is needed.
    """

    queued: int
    oldest_queued: timedelta | None
    oldest_due: timedelta | None
    next_slot_in: timedelta
    pauses: dict[Pause, timedelta]
    account_faults: int
    outcomes: dict[str, int]
    heartbeats: dict[str, timedelta]
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
    oldest_due = max(now - found["due"], timedelta(0))
    return Queue(found["depth"], now - found["oldest"], oldest_due)


def oldest_due() -> timedelta | None:
    """How long ago a queued row could first have been sent; None for an empty queue."""
    return queue().oldest_due


def is_too_long(waiting: timedelta | None) -> TypeGuard[timedelta]:
    """Whether a row that could have been sent for ``waiting`` needs a person."""
    return waiting is not None and waiting > LONG_QUEUED


def health() -> Health:
    """Look at queue, gate, last hour, heartbeats and brakes. Nine queries."""
    now = timezone.now()
    waiting, provider_gate, outcomes = queue(), gate.current(), _outcomes(now)
    ages = heartbeats.ages()
    troubles = _troubles(now, provider_gate, outcomes, waiting.oldest_due)
    troubles += [*_silences(ages), *_reached_limits(now)]
    troubles += [Trouble.BRAKE] if brake.engaged() else []
    return Health(
        queued=waiting.depth,
        oldest_queued=waiting.oldest,
        oldest_due=waiting.oldest_due,
        next_slot_in=provider_gate.next_slot(now) - now,
        pauses={each: provider_gate.pause_ends_at(each, now) - now for each in Pause},
        account_faults=provider_gate.account_faults,
        outcomes=outcomes,
        heartbeats=ages,
        troubles=troubles,
    )


def _outcomes(now: datetime) -> dict[str, int]:
    """How many rows of the last hour have each failure, or else each status."""
    recent = PhoneVerification.objects.filter(created_at__gt=now - timedelta(hours=1))
    groups = recent.order_by().values_list("status", "failure")
    return {
        failure or status: count
        for status, failure, count in groups.annotate(count=Count("pk"))
    }


def _troubles(
    now: datetime,
    provider_gate: ProviderGate,
    outcomes: dict[str, int],
    waiting: timedelta | None,
) -> list[Trouble]:
    failures = sum(outcomes.get(failure, 0) for failure in PROVIDER_FAILURES)
    has_sent = bool(outcomes.keys() & set(ACCEPTED_STATUSES))
    overdue = _overdue(now)
    is_sweep_missing = max(overdue["lease"], overdue["signal"]) >= LONG_QUEUED
    found = {
        Trouble.NO_KEY: not conf.has_credentials,
        Trouble.ACCOUNT: provider_gate.account_faults or Failure.ACCOUNT in outcomes,
        Trouble.FAILING: failures >= MANY_FAILURES and not has_sent,
        Trouble.QUEUE: is_too_long(waiting) or is_sweep_missing,
        Trouble.LATE: Failure.TOO_LATE in outcomes,
        Trouble.RECEIVERS: overdue["proof"] >= LONG_UNANNOUNCED,
    }
    return [trouble for trouble, is_found in found.items() if is_found]


def _overdue(now: datetime) -> dict[str, timedelta]:
    """How long the first lease, proof and signal have waited; zero where there is none.

    A lease waits from its end on, the signal of a proof from when it is due, and the
    proof itself from when it was verified, if it was LONG_UNANNOUNCED ago.
    """
    # By minimum and order: PostgreSQL would look for any such row in the whole table.
    sending = PhoneVerification.objects.filter(status=Status.SENDING)
    first = sending.aggregate(lease=Min("lease_until"))
    unannounced = PhoneVerification.objects.filter(
        status=Status.VERIFIED, announced_at=None
    ).order_by("announced_at", "announce_at")
    first["signal"] = unannounced.values_list("announce_at", flat=True).first()
    overdue = unannounced.filter(verified_at__lte=now - LONG_UNANNOUNCED)
    first["proof"] = overdue.values_list("verified_at", flat=True).first()
    return {name: now - (moment or now) for name, moment in first.items()}


def _silences(ages: dict[str, timedelta]) -> Iterator[Trouble]:
    """What ran once and stopped. Without a sweep, no worker is pinged."""
    if heartbeats.is_silent(SWEEP, ages):
        yield Trouble.SWEEP
    elif SWEEP in ages and heartbeats.is_silent(DELIVERY, ages):
        yield Trouble.DELIVERY


def _reached_limits(now: datetime) -> list[Trouble]:
    """The limits that refused starts of many people in this hour."""
    refused = Tally.objects.using(primary_alias()).filter(
        hour__gte=hour_of(now - REFUSALS_LINGER),
        name=Tally.Name.REFUSED,
        reason__in=(Trouble.BLOCK, Trouble.SITE),
    )
    reasons = refused.order_by("reason").values_list("reason", flat=True).distinct()
    return [Trouble(reason) for reason in reasons]
