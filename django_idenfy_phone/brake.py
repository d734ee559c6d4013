"""The brake: where hardly anybody confirms, newcomers of the region have to wait.

Fraudsters have SMS sent to numbers of their own, for a share of the fee, and confirm
none. The sweep counts them by region; a start only reads until when the brake of its
region is engaged.
"""

import logging
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import Error
from django.db.models import Count, Exists, OuterRef, Q
from django.utils import timezone

from . import events
from .alarms import alarm
from .conf import ENFORCE, Brake, conf
from .edge import hide
from .events import Event
from .models import PhoneVerification, RegionBrake, primary_alias
from .processes import AtMostEvery
from .querysets import PhoneVerificationQuerySet
from .statuses import ACCEPTED_STATUSES, Failure, Status
from .transactions import bounded_locks

logger = logging.getLogger(__name__)

# The ``reason`` of a start that it refuses.
BRAKE = "brake"
# How long people have to confirm before a send counts.
MIN_AGE = timedelta(minutes=3)
INTERVAL = timedelta(minutes=1)
# No more of the newest rows are read.
MAX_ROWS = 100_000


class Sends(NamedTuple):
    """How many ``numbers`` of a region got a code, and how many ``confirmed`` one."""

    region: str
    numbers: int
    confirmed: int

    def need_brake(self, brake: Brake) -> bool:
        """Whether they are enough, and too few of them confirmed."""
        is_enough = self.numbers >= brake.sends.sends
        return is_enough and self.confirmed < brake.confirmed_below * self.numbers


def engaged() -> list[RegionBrake]:
    """The brakes that are engaged now, also where they only observe."""
    return _ending_after(timezone.now())


def of_last_day() -> list[RegionBrake]:
    """The brakes that are engaged now, and those that ended within a day."""
    return _ending_after(timezone.now() - timedelta(days=1))


def _ending_after(moment: datetime) -> list[RegionBrake]:
    if conf.BRAKE is None:
        return []
    brakes = RegionBrake.objects.filter(engaged_until__gt=moment)
    return list(brakes.order_by("region"))


def release(region: str) -> bool:
    """End the brake of a region: only later sends count. False where there is none."""
    now = timezone.now()
    with bounded_locks(primary_alias()) as bounds:
        brakes = RegionBrake.objects.filter(bounds or Q(), region=region)
        engaged = brakes.filter(engaged_until__gt=now)
        is_released = engaged.update(engaged_until=now) > 0
    if is_released:
        events.log(Event.RELEASED, region=region, reason=BRAKE)
    return is_released


def is_enforced() -> bool:
    """Whether brakes refuse starts."""
    return conf.BRAKE is not None and conf.BRAKE.mode == ENFORCE


def refuses(engaged_until: datetime, user_id: Any) -> bool:
    """Whether an enforced brake that is engaged so long refuses this user's start now.

    It refuses no user who verified a number before.
    """
    if engaged_until <= timezone.now():
        return False
    return user_id is None or not proofs_of(user_id).exists()


def proofs_of(user_id: Any) -> PhoneVerificationQuerySet:
    """The numbers that a user verified before."""
    return PhoneVerification.objects.filter(status=Status.VERIFIED, user_id=user_id)


_looks = AtMostEvery(INTERVAL)


def watch() -> None:
    """Engage brakes where it is time, once in INTERVAL in a process. Never raises."""
    if not conf.BRAKE or not _looks.is_due():
        return
    try:
        look(conf.BRAKE)
    except Error as error:
        text = "The brake could not look at the sends (%s)."
        alarm(logger.error, text, hide(error))


def look(brake: Brake) -> None:
    """Engage the brakes of regions where hardly anybody confirms.

    Reads at most the MAX_ROWS newest rows of the window. Several may look at once.
    """
    now = timezone.now()
    known = {each.region: each.engaged_until for each in RegionBrake.objects.all()}
    for sends in _sends(brake, known, now):
        if sends.need_brake(brake):
            _engage(sends, known.get(sends.region), brake, now)
    _count_starts(now)


def _sends(
    brake: Brake, known: dict[str, datetime | None], now: datetime
) -> list[Sends]:
    """The sends of each region, older than MIN_AGE and later than its last release."""
    rows = PhoneVerification.objects.filter(created_at__gt=now - brake.sends.window)
    rows = _newest(rows.filter(created_at__lte=now - MIN_AGE))
    for region, until in known.items():
        if until and until > now - brake.sends.window:
            rows = rows.exclude(region=region, created_at__lte=until)
    may_have_sent = Q(status=Status.FAILED, failure=Failure.UNKNOWN)
    sent = rows.filter(Q(status__in=ACCEPTED_STATUSES) | may_have_sent)
    numbers = Count("phone_number", distinct=True)
    confirmed = Count("phone_number", distinct=True, filter=Q(is_verified=True))
    groups = sent.filter(claimed_at__lte=now - MIN_AGE).order_by().values("region")
    counted = groups.annotate(numbers=numbers, confirmed=confirmed)
    return [Sends(**each) for each in counted]


def _newest(rows: PhoneVerificationQuerySet) -> PhoneVerificationQuerySet:
    times = rows.order_by("-created_at").values_list("created_at", flat=True)
    bound = times[MAX_ROWS : MAX_ROWS + 1].first()
    return rows.filter(created_at__gt=bound) if bound else rows


def _engage(sends: Sends, seen: datetime | None, brake: Brake, now: datetime) -> None:
    """Unless its end is no longer as ``seen``: then somebody else was faster."""
    RegionBrake.objects.bulk_create(
        [RegionBrake(region=sends.region)], ignore_conflicts=True
    )
    until = now + brake.pause
    with bounded_locks(primary_alias()) as bounds:
        unchanged = RegionBrake.objects.filter(
            bounds or Q(), region=sends.region, engaged_until=seen
        )
        is_engaged = unchanged.update(
            engaged_at=now,
            engaged_until=until,
            numbers=sends.numbers,
            confirmed=sends.confirmed,
            starts=0,
        )
    if is_engaged:
        _tell(sends, brake, until)


def _tell(sends: Sends, brake: Brake, until: datetime) -> None:
    # A region has one line: alarms are kept by their text.
    text = f"Hardly anybody confirms codes in region {sends.region}: %s of %s numbers. "
    log, effect = logger.warning, "The brake only observes, until %s."
    if brake.mode == ENFORCE:
        log, effect = logger.critical, "The brake refuses newcomers until %s."
    alarm(log, text + effect, sends.confirmed, sends.numbers, until)


def _count_starts(now: datetime) -> None:
    """Note how many starts of newcomers each engaged brake has let pass."""
    proofs = PhoneVerification.objects.filter(
        user=OuterRef("user"),
        status=Status.VERIFIED,
        verified_at__lt=OuterRef("created_at"),
    )
    # Twice the interval, so that the last count comes after the end.
    for each in RegionBrake.objects.filter(engaged_until__gt=now - 2 * INTERVAL):
        starts = PhoneVerification.objects.filter(
            ~Exists(proofs),
            region=each.region,
            created_at__gt=each.engaged_at,
            created_at__lte=each.engaged_until,
        )
        same = RegionBrake.objects.filter(pk=each.pk, engaged_at=each.engaged_at)
        same.update(starts=starts[:MAX_ROWS].count())
