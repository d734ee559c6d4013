"""GCRA and pauses are pure functions of times: no database is needed here."""

from datetime import UTC, datetime, timedelta

import pytest

from django_idenfy_phone import pacing
from django_idenfy_phone.conf import parse_limit

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
ONE_A_SECOND = parse_limit("1/s")


def send(stored, now=NOW, resumes_at=None, rate=ONE_A_SECOND):
    """The slot of the next send, and the arrival time that it stores."""
    resumes_at = resumes_at or now
    arrival = pacing.theoretical_arrival(stored, resumes_at, now, rate, 3 * MINUTE)
    return pacing.slot_for(arrival, resumes_at, rate), arrival + rate.interval


def waits(count, stored=None, rate=ONE_A_SECOND, **options):
    """How long each of ``count`` sends at the same time has to wait."""
    found = []
    for _ in range(count):
        slot, stored = send(stored, rate=rate, **options)
        found.append(slot - NOW)
    return found


def test_burst_of_20_leaves_at_once_and_then_one_a_second():
    expected = [timedelta(0)] * 20 + [n * SECOND for n in (1, 2, 3)]
    assert waits(23) == expected


@pytest.mark.parametrize(
    ("text", "interval"), [("1/2m", 2 * MINUTE), ("20/s", SECOND / 20)]
)
def test_rate_sets_the_time_between_two_slots(text, interval):
    first, second = waits(22, rate=parse_limit(text))[-2:]
    assert second - first == interval


def test_idle_time_refills_the_burst():
    used_up, later = NOW + 20 * SECOND, NOW + 40 * SECOND
    assert waits(21, used_up, now=later) == [40 * SECOND] * 20 + [41 * SECOND]


def test_pause_delays_all_sends():
    resumes_at = NOW + 7 * SECOND
    assert waits(3, resumes_at=resumes_at)[0] == 7 * SECOND


def test_no_burst_follows_a_pause():
    until = NOW + 7 * SECOND
    stored = pacing.arrival_after_pause(until, ONE_A_SECOND)
    assert waits(3, stored, resumes_at=until) == [7 * SECOND, 8 * SECOND, 9 * SECOND]


@pytest.mark.parametrize(("left", "longest"), [(80, 40), (1, 0.5), (-1, 0)])
def test_random_slot_lies_in_the_first_half_of_what_is_left(left, longest):
    def wait():
        return (pacing.random_slot(NOW, NOW + left * SECOND) - NOW) / SECOND

    waits = [wait() for _ in range(1000)]
    assert 0 <= min(waits) <= 0.1 * longest
    assert 0.9 * longest <= max(waits) <= longest


@pytest.mark.parametrize(("ahead", "idle"), [(-1, True), (4.75, True), (4.76, False)])
def test_sends_are_idle_while_three_quarters_of_the_burst_are_unused(ahead, idle):
    assert pacing.is_idle(NOW + ahead * SECOND, NOW, ONE_A_SECOND) == idle


@pytest.mark.parametrize(
    ("ahead", "plausible"),
    [
        (None, False),
        (timedelta(0), False),
        (-SECOND, False),
        (SECOND, True),
        (6 * MINUTE, True),
        (6 * MINUTE + SECOND, False),
    ],
)
def test_time_that_is_past_or_too_far_ahead_counts_as_now(ahead, plausible):
    moment = NOW + ahead if ahead is not None else None
    expected = moment if plausible else NOW
    assert pacing.plausible_or_now(moment, NOW, 5 * MINUTE) == expected


@pytest.mark.parametrize(
    ("ahead", "slot"),
    [
        # SEND_DEADLINE, a burst of 20 seconds, and the tolerated clock skew.
        (260 * SECOND, 241 * SECOND),
        (261 * SECOND, timedelta(0)),
    ],
)
def test_arrival_time_that_no_queue_can_reach_is_ignored(ahead, slot):
    assert send(NOW + ahead)[0] - NOW == slot
