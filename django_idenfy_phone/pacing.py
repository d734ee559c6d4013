"""When sends and signals may leave: GCRA and pauses, as pure functions of times.

GCRA, the generic cell rate algorithm, paces sends by one stored time, the theoretical
arrival time: when the next send would come if all of them kept exactly to the rate. A
send may leave ``burst_duration`` before that time. So in any t seconds at most
SEND_BURST sends leave, and those that the rate allows in t seconds.

Two such times are kept: one moves with each reserved slot, so that waiting rows come
one after the other, and one with each send. Slots that passed during an outage are
thus no licence to send many at once.

``Pause`` names the three pauses.
"""

import random
from datetime import datetime, timedelta

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _

from .conf import Limit
from .exceptions import MAX_RETRY_AFTER

SEND_BURST = 20
# Tolerated clock skew between hosts.
MAX_CLOCK_SKEW = timedelta(minutes=1)


class Pause(TextChoices):
    SENDS = "sends", _("Sends paused")
    # iDenfy answered 429 to a send.
    ACCOUNT = "account", _("Account paused")
    # iDenfy refused the key, the contract or the credits.
    CHECKS = "checks", _("Checks paused")
    # iDenfy answered 429 to a check.


DAY = timedelta(days=1)
# How long no other process announces a row.
ANNOUNCE_LEASE = timedelta(minutes=2)
# How long receivers may fail before a person is called.
RECEIVER_GRACE = DAY
ACCOUNT_PAUSE = timedelta(minutes=1)
JITTER_BASE = timedelta(seconds=2)
JITTER_CAP = timedelta(seconds=30)
LONGEST_PAUSES = {
    Pause.SENDS: MAX_RETRY_AFTER,
    Pause.ACCOUNT: ACCOUNT_PAUSE,
    Pause.CHECKS: MAX_RETRY_AFTER,
}


def announcement_pause(tries: int, verified_at: datetime, now: datetime) -> timedelta:
    """How long no other process announces a row that was tried ``tries`` times before.

    ANNOUNCE_LEASE at first, and it doubles each time. One try comes when RECEIVER_GRACE
    ends, and then one each day.
    """
    left = verified_at + RECEIVER_GRACE - now
    if left <= timedelta(0):
        return DAY
    doubled: timedelta = ANNOUNCE_LEASE * 2 ** min(tries, 10)
    return max(min(doubled, DAY, left), ANNOUNCE_LEASE)


def retry_delay(attempts: int) -> timedelta:
    """How long to wait after the last of ``attempts`` sends, none of which left.

    Full jitter: a random time, at most JITTER_BASE, which doubles with each attempt up
    to JITTER_CAP.
    """
    longest: timedelta = min(JITTER_CAP, JITTER_BASE * 2**attempts)
    return longest * random.random()


def plausible_or_now(
    moment: datetime | None, now: datetime, longest: timedelta
) -> datetime:
    """Return ``moment``, or ``now`` where it is None, past or too far ahead.

    A time more than ``longest`` ahead was written by a host whose clock is wrong, or
    before all clocks were set back: it must not stop the other hosts.
    """
    if moment is None or not now < moment <= now + longest + MAX_CLOCK_SKEW:
        return now
    return moment


def pause_ends_at(pause: Pause, stored: datetime | None, now: datetime) -> datetime:
    """When a pause ends, by its stored end; ``now`` where there is none."""
    return plausible_or_now(stored, now, LONGEST_PAUSES[pause])


def latest_end(pause: Pause, now: datetime) -> datetime:
    """The latest stored end of a pause that counts: see ``plausible_or_now``."""
    return now + LONGEST_PAUSES[pause] + MAX_CLOCK_SKEW


def burst_duration(rate: Limit) -> timedelta:
    """How much earlier than its theoretical arrival time a send may leave."""
    return rate.interval * (SEND_BURST - 1)


def theoretical_arrival(
    stored: datetime | None,
    resumes_at: datetime,
    now: datetime,
    rate: Limit,
    longest_wait: timedelta = timedelta(0),
) -> datetime:
    """The theoretical arrival time of the next send.

    ``stored`` is what the last send left. ``resumes_at`` is the end of all pauses,
    ``now`` where there is none. No slot lies further ahead than the longer of the
    pauses and ``longest_wait``.
    """
    longest = max(resumes_at - now, longest_wait) + rate.interval * SEND_BURST
    return max(resumes_at, plausible_or_now(stored, now, longest))


def slot_for(arrival: datetime, resumes_at: datetime, rate: Limit) -> datetime:
    """When a send with this theoretical arrival time may leave."""
    return max(resumes_at, arrival - burst_duration(rate))


def arrival_after_pause(until: datetime, rate: Limit) -> datetime:
    """The earliest theoretical arrival time for which no burst follows the pause."""
    return until + burst_duration(rate)


def is_idle(sent_arrival: datetime, now: datetime, rate: Limit) -> bool:
    """Whether most of the burst is unused, although rows may wait for their slots.

    Then rows whose slot has come do not come: their messages wait behind others.
    """
    return sent_arrival <= now + burst_duration(rate) / 4


def random_slot(free_at: datetime, send_by: datetime) -> datetime:
    """When to try a late row again for which no slot is left.

    In the first half of what is left, so the rows with the least time try most often.
    """
    left = max(send_by - free_at, timedelta(0))
    return free_at + left / 2 * random.random()
