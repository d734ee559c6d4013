"""The sweep counts what became of the starts of each hour."""

from datetime import timedelta
from functools import partial

import pytest
from django.db import OperationalError, connection
from django.db.models import Sum
from django.utils import timezone

from django_idenfy_phone import maintenance, tallies
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.records import Heartbeat, Tally
from django_idenfy_phone.tallies import hour_of
from support.constants import NUMBER
from support.databases import after_statement
from support.steps import logged_messages

pytestmark = pytest.mark.django_db
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def sweep(clock):
    """Sweep, after a time in which the rows change; the first one at half past."""
    clock.now = hour_of(clock.now) + HOUR / 2

    def sweep(after=timedelta(0)):
        clock.move(after)
        maintenance.sweep(lambda pk: True, is_eager=True)

    return sweep


def counted(hour, *, region="LT"):
    """The counts of an hour by name, or by failure where there is one."""
    rows = Tally.objects.filter(hour=hour, region=region).order_by("id")
    return {row.reason or row.name: row.count for row in rows}


ALL = {
    "started": 6,
    "sent": 4,
    "verified": 1,
    "expired": 1,
    "locked": 1,
    "unknown": 1,
}


def test_sweep_counts_outcomes(make, sweep, clock):
    for status in ("queued", "sent", "verified", "expired", "locked"):
        make(status, verified_at=clock.now, announced_at=clock.now)
    make("failed", failure="unknown")
    make("sent", region="US")
    sweep()
    assert counted(hour_of(clock.now)) == ALL
    assert counted(hour_of(clock.now), region="US") == {"started": 1, "sent": 1}


def test_local_hours_are_counted_where_local_times_are_stored(make, settings):
    settings.USE_TZ = False
    make("expired", created_at=hour_of(timezone.now()))
    maintenance.sweep(lambda pk: True, is_eager=True)
    expected = {"started": 1, "sent": 1, "expired": 1}
    assert counted(hour_of(timezone.now())) == expected


def test_nothing_is_counted_before_all_late_rows_have_ended(make, sweep, clock):
    late = {"created_at": clock.now, "send_by": clock.now, "region": "LT"}
    new = [PhoneVerification(phone_number=NUMBER, **late) for _ in range(501)]
    PhoneVerification.objects.bulk_create(new)
    no_time = timedelta(seconds=-1)
    maintenance.sweep(lambda pk: True, no_time, is_eager=True)
    assert not Tally.objects.exists()
    sweep()
    assert counted(hour_of(clock.now)) == {"started": 501, "too_late": 501}


def test_second_count_replaces_the_first(make, sweep, clock):
    hour = hour_of(clock.now)
    row = make("sent", expires_at=clock.now + HOUR)
    sweep()
    PhoneVerification.objects.mark_verified(row, clock.now)
    make("failed", failure="too_late")
    sweep(MINUTE)
    assert counted(hour) == {"started": 2, "sent": 1, "verified": 1, "too_late": 1}


def test_sweeps_count_once_a_minute(make, sweep, clock):
    sweep()
    make("sent")
    sweep(MINUTE - timedelta(seconds=1))
    assert counted(hour_of(clock.now)) == {}
    sweep(timedelta(seconds=1))
    assert counted(hour_of(clock.now)) == {"started": 1, "sent": 1}


def test_sweep_skips_what_another_process_just_counted(make, sweep, clock):
    sweep()
    make("sent")
    tallies._recounts.reset()
    sweep(timedelta(seconds=20))
    assert counted(hour_of(clock.now)) == {}


def test_code_of_the_last_hour_may_still_be_confirmed(make, sweep, clock):
    hour = hour_of(clock.now)
    row = make("sent", created_at=hour + HOUR - MINUTE, expires_at=hour + 2 * HOUR)
    sweep(HOUR / 2 + MINUTE)
    PhoneVerification.objects.mark_verified(row, clock.now)
    sweep(10 * MINUTE)
    assert counted(hour) == {"started": 1, "sent": 1, "verified": 1}


def test_purged_rows_stay_counted(make, sweep, clock):
    hour = hour_of(clock.now)
    make("expired")
    sweep()
    sweep(HOUR)
    PhoneVerification.objects.all().delete()
    for _ in range(3):
        sweep(HOUR)
    assert counted(hour) == {"started": 1, "sent": 1, "expired": 1}


def test_hours_of_an_outage_are_counted_step_by_step(make, sweep, clock):
    sweep()
    begin = hour_of(clock.now)
    for hours in range(1, 16):
        make("expired", created_at=begin + hours * HOUR)
    sweep(16 * HOUR)
    assert counted(begin + 6 * HOUR) == {}
    sweep(MINUTE)
    sweep(MINUTE)
    one = {"started": 1, "sent": 1, "expired": 1}
    assert [counted(begin + hours * HOUR) for hours in range(1, 16)] == [one] * 15


@pytest.mark.parametrize("hours", [5, 12, 24])
def test_present_hour_is_counted_however_long_a_code_lives(
    make, sweep, clock, settings, hours
):
    settings.IDENFY_PHONE_CODE_LIFETIME = hours * HOUR
    make("expired", created_at=clock.now - 2 * 24 * HOUR)
    for _ in range(9):
        sweep(MINUTE)
    make("sent")
    sweep(MINUTE)
    assert counted(hour_of(clock.now)) == {"started": 1, "sent": 1}


def test_rows_from_before_the_first_sweep_are_counted(make, sweep, clock):
    make("expired", created_at=clock.now - 3 * HOUR)
    sweep()
    expected = {"started": 1, "sent": 1, "expired": 1}
    assert counted(hour_of(clock.now - 3 * HOUR)) == expected


def test_marker_of_a_clock_that_was_wrong_stops_no_count(make, sweep, clock):
    Heartbeat.objects.create(name=tallies.MARKER, beat_at=clock.now + 24 * HOUR)
    make("sent")
    sweep()
    assert counted(hour_of(clock.now)) == {"started": 1, "sent": 1}


def test_refusals_of_the_hour_stay(sweep, clock):
    tallies.note_refusal("cooldown", "LT", "")
    sweep()
    assert counted(hour_of(clock.now)) == {"cooldown": 1}


@pytest.mark.django_db(transaction=True)
def test_sweep_that_counted_before_another_one_stores_nothing(make, sweep, clock):
    def count_in_between():
        make("sent")
        tallies._recount(clock.now)

    # Only this hour is counted, by one statement.
    Heartbeat.objects.create(name=tallies.MARKER, beat_at=clock.now - MINUTE)
    make("sent")
    with after_statement(count_in_between) as after:
        after("GROUP BY")
        tallies._recount(clock.now)
    assert counted(hour_of(clock.now)) == {"started": 2, "sent": 2}


@pytest.mark.django_db(transaction=True)
def test_ten_sweeps_at_once_count_as_one(make, clock, at_once):
    for _ in range(5):
        make("expired")
    at_once(lambda _: tallies._recount(clock.now), range(10))
    assert counted(hour_of(clock.now)) == {"started": 5, "sent": 5, "expired": 5}


@pytest.mark.django_db(transaction=True)
def test_refusals_and_sweeps_at_once_lose_no_count(make, clock, at_once):
    make("expired")
    refuse = partial(tallies.note_refusal, "cooldown", "LT", "")
    recount = partial(tallies._recount, clock.now)
    at_once(lambda act: act(), [*[refuse] * 30, *[recount] * 6])
    refusals = Tally.objects.filter(name="refused").aggregate(Sum("count"))
    assert refusals == {"count__sum": 30}
    assert Tally.objects.get(name="expired").count == 1


def test_failure_to_count_stops_no_sweep(make, sweep, caplog):
    def fail(execute, sql, *arguments):
        if "tally" in sql:
            raise OperationalError("some value")
        return execute(sql, *arguments)

    make("sent")
    with connection.execute_wrapper(fail):
        sweep()
    text = "The tallies could not be counted (OperationalError)."
    assert logged_messages(caplog) == [("ERROR", text)]
