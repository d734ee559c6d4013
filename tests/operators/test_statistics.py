"""The figures of the last 24 hours, 7 days and 30 days, from the tallies alone."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_idenfy_phone import statistics
from django_idenfy_phone.records import Tally
from django_idenfy_phone.statistics import (
    PERIODS,
    Figures,
    Hour,
    Region,
    Speed,
    all_figures,
    by_hour,
    figures,
    speeds,
)
from django_idenfy_phone.tallies import hour_of

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def tally(clock):
    """Store a tally of some hours ago."""

    def tally(name, count, *, hours=0, **fields):
        hour = hour_of(clock.now) - hours * HOUR
        Tally.objects.create(
            **{"region": "LT"} | fields, hour=hour, name=name, count=count
        )

    return tally


def test_figures_sum_up_a_period(tally):
    tally("started", 7)
    tally("started", 2, hours=23, region="US")
    tally("sent", 5)
    tally("sent", 1, hours=1)
    tally("verified", 3)
    tally("expired", 1)
    tally("locked", 2)
    tally("failed", 1, reason="too_late")
    tally("failed", 4, reason="unknown")
    for shard in range(3):
        tally("refused", 5, reason="cooldown", shard=shard)
    tally("refused", 50, reason="number_not_supported", region="DE")
    found = figures(PERIODS["24h"])
    assert found == Figures(
        started=9,
        sent=6,
        verified=3,
        expired=1,
        locked=2,
        refused={"number_not_supported": 50, "cooldown": 15},
        failed={"unknown": 4, "too_late": 1},
        regions={
            "LT": Region(7, refused=15, not_supported=0, sent=6, verified=3),
            "US": Region(2, refused=0, not_supported=0, sent=0, verified=0),
            "DE": Region(0, refused=50, not_supported=50, sent=0, verified=0),
        },
    )
    assert list(found.refused) == ["number_not_supported", "cooldown"]
    assert list(found.regions) == ["LT", "US", "DE"]
    assert found.possibly_billed == 10


@pytest.mark.parametrize(("sent", "expected"), [(4, 0.75), (0, None)])
def test_conversion_is_the_verified_part_of_the_sends(sent, expected):
    region = Region(9, refused=9, not_supported=0, sent=sent, verified=3)
    assert region.conversion == expected


@pytest.mark.parametrize(("name", "hours"), [("24h", 24), ("7d", 168), ("30d", 720)])
def test_period_ends_with_this_hour(tally, name, hours):
    for age in (0, hours - 1, hours):
        tally("started", 1, hours=age)
    assert figures(PERIODS[name]).started == 2


def test_hours_are_listed_oldest_first(tally, clock):
    tally("started", 9, hours=1)
    tally("refused", 2, reason="block")
    tally("refused", 1, reason="cooldown")
    tally("failed", 4, reason="unknown")
    *_rest, last, present = by_hour(PERIODS["24h"])
    begin = hour_of(clock.now)
    assert last == Hour(
        begin - HOUR, started=9, refused=0, sent=0, verified=0, failed=0
    )
    assert present == Hour(begin, started=0, refused=3, sent=0, verified=0, failed=4)


@pytest.mark.parametrize(("name", "hours"), [("24h", 24), ("7d", 168), ("30d", 720)])
def test_each_hour_of_a_period_is_listed(name, hours):
    begins = [hour.begin for hour in by_hour(PERIODS[name])]
    assert len(set(begins)) == hours
    assert begins[-1] == hour_of(timezone.now())


def test_figures_take_one_query(tally, django_assert_num_queries):
    with django_assert_num_queries(1):
        figures(PERIODS["30d"])
    with django_assert_num_queries(1):
        by_hour(PERIODS["30d"])
    with django_assert_num_queries(1):
        all_figures()
    with django_assert_num_queries(1):
        speeds()


def test_figures_of_all_periods_are_those_of_each(tally):
    tally("started", 1)
    tally("failed", 2, hours=24, reason="unknown")
    tally("refused", 4, hours=168, reason="cooldown", region="GB")
    tally("refused", 8, hours=720, reason="cooldown")
    found = all_figures()
    assert found == {name: figures(period) for name, period in PERIODS.items()}
    assert list(found["24h"].regions) == ["LT"]


def test_speeds_are_half_and_95_percent_of_the_newest(make, monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLE", 100)
    now, second = timezone.now(), timedelta(seconds=1)
    for age in range(102):
        start = now - age * HOUR
        make("sent", created_at=start, sent_at=start + (age + 1) * second)
    make("queued", created_at=now)
    found = speeds()
    assert (found.rows, found.verify) == (100, Speed(0, None, None))
    assert found.send == Speed(99, 50 * second, 95 * second)
