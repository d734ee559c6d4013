"""The limit of the site is a fuse: it reads no whole window in a start."""

from datetime import timedelta

import pytest
from django.db import connection, transaction

from django_idenfy_phone import limits, site
from django_idenfy_phone.conf import conf, parse_limit
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import refusal_of, start

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
LIMIT = parse_limit("3/h")
rows = PhoneVerification.objects


@pytest.fixture(autouse=True)
def _three_an_hour(settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"site": ("3/h",)}


@pytest.fixture
def counter():
    return site.SiteCounter()


def nth_newest(counter, now, limit=LIMIT):
    counter.recount(now)
    return counter.nth_newest(limit, now)


def older(make, clock, age, count=1):
    for _ in range(count):
        make("expired", created_at=clock.now - age)


@pytest.mark.django_db
def test_counts_are_kept_for_a_second(make, clock, counter, django_assert_num_queries):
    counter.recount(clock.now)
    clock.move(SECOND - timedelta(microseconds=1))
    with django_assert_num_queries(0):
        assert nth_newest(counter, clock.now) is None
    clock.move(timedelta(microseconds=1))
    with django_assert_num_queries(1):
        nth_newest(counter, clock.now)


@pytest.mark.django_db
def test_threads_whose_time_is_a_little_older_count_nothing_anew(
    clock, counter, django_assert_num_queries
):
    counter.recount(clock.now)
    with django_assert_num_queries(0):
        counter.recount(clock.now - timedelta(microseconds=1))


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_a_lock_while_the_site_is_counted(user, wire, clock):
    def wrapper(execute, sql, *arguments):
        if site.SLICE_OF_ROW[connection.vendor] in sql:
            autocommits.append(connection.get_autocommit())
        result = execute(sql, *arguments)
        if "startlock" in sql:
            # As long as another start held the lock.
            clock.move(2 * SECOND)
        return result

    autocommits = []
    with connection.execute_wrapper(wrapper):
        start(user)
    assert autocommits == [True]


@pytest.mark.django_db
def test_closed_slices_are_counted_once(make, clock, counter):
    older(make, clock, 30 * 60 * SECOND, 2)
    counter.recount(clock.now)
    # Rows that a start would never store so late.
    older(make, clock, 20 * 60 * SECOND)
    clock.move(2 * SECOND)
    assert nth_newest(counter, clock.now) is None


@pytest.mark.django_db
def test_open_slices_are_counted_again(make, clock, counter):
    older(make, clock, 30 * 60 * SECOND, 2)
    counter.recount(clock.now)
    older(make, clock, 60 * SECOND)
    clock.move(2 * SECOND)
    assert nth_newest(counter, clock.now) == clock.now - 2 * SECOND - HOUR / 2


@pytest.mark.django_db
@pytest.mark.django_db
def test_limit_is_found_behind_slices_with_several_rows(make, clock, counter):
    older(make, clock, 5 * SECOND, 2)
    older(make, clock, 25 * SECOND)
    older(make, clock, 26 * SECOND)
    assert nth_newest(counter, clock.now) == clock.now - 25 * SECOND


@pytest.mark.parametrize("change", [-2 * HOUR, 2 * HOUR])
def test_all_is_counted_anew_after_the_clock_was_set(make, clock, counter, change):
    older(make, clock, HOUR / 2, 3)
    older(make, clock, HOUR / 4 - change, 3)
    assert nth_newest(counter, clock.now) == clock.now - HOUR / 2
    clock.move(change)
    assert nth_newest(counter, clock.now) == clock.now - HOUR / 4


@pytest.mark.django_db
def test_longer_window_is_counted_anew(settings, make, clock, counter):
    older(make, clock, 5 * HOUR, 3)
    counter.recount(clock.now)
    settings.IDENFY_PHONE_SEND_LIMITS = {"site": ("3/d",)}
    clock.move(2 * SECOND)
    [limit] = conf.SEND_LIMITS["site"]
    assert nth_newest(counter, clock.now, limit) == clock.now - 2 * SECOND - 5 * HOUR


@pytest.mark.django_db
def test_row_that_is_too_late_is_not_counted(make, clock, counter):
    for _ in range(3):
        make("queued")
    assert nth_newest(counter, clock.now) == clock.now
    clock.move(180 * SECOND)
    assert nth_newest(counter, clock.now) is None


@pytest.mark.django_db(transaction=True)
def test_start_of_this_process_counts_at_once(user, wire, clock):
    limits.count_site()
    clock.move(timedelta(microseconds=1))
    for tail in (1, 2, 3):
        start(user, f"{NUMBER[:-1]}{tail}")
    assert refusal_of(user)[0] == "limit_reached"


@pytest.mark.django_db(transaction=True)
def test_starts_of_other_processes_count_after_a_second(user, make, wire, clock):
    limits.count_site()
    clock.move(timedelta(milliseconds=1))
    older(make, clock, timedelta(0), 3)
    start(user, f"{NUMBER[:-1]}1")
    clock.move(SECOND)
    assert refusal_of(user, f"{NUMBER[:-1]}2")[0] == "limit_reached"


@pytest.mark.django_db(transaction=True)
def test_start_in_the_callers_transaction_counts_the_site_too(user, make, wire, clock):
    limits.count_site()
    clock.move(SECOND)
    older(make, clock, timedelta(0), 3)
    with transaction.atomic():
        assert refusal_of(user, f"{NUMBER[:-1]}2")[0] == "limit_reached"


@pytest.mark.django_db
@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize(("limit", "is_reached"), [("1/h", True), ("2/h", False)])
def test_start_that_is_counted_meanwhile_counts_once(
    make, clock, counter, is_before, limit, is_reached
):
    class Own(list):
        """Another thread counts just before or after they are read."""

        def __getitem__(self, place):
            if is_before:
                counter.recount(clock.now)
            read = super().__getitem__(place)
            if place == slice(None):
                counter.recount(clock.now)
            return read

    counter.recount(clock.now)
    clock.move(timedelta(milliseconds=1))
    row = make("expired", created_at=clock.now)
    counter._own = Own([row.created_at])
    clock.move(2 * SECOND)
    found = counter.nth_newest(parse_limit(limit), clock.now)
    assert found == (row.created_at if is_reached else None)


def test_each_database_has_its_own_count(settings):
    class Router:
        def db_for_write(self, model, **hints):
            return tenants[-1]

    tenants = ["first"]
    settings.DATABASE_ROUTERS = [Router()]
    first = site._counter()
    tenants.append("second")
    second = site._counter()
    tenants.append("first")
    assert (site._counter() is first, second is first) == (True, False)


@pytest.mark.django_db(transaction=True)
def test_refused_start_counts_nothing(user, make, wire, clock):
    older(make, clock, HOUR / 2, 2)
    start(user)
    for _ in range(3):
        refusal_of(user)
    clock.move(HOUR / 2)
    start(user)


@pytest.mark.django_db(transaction=True)
def test_50_threads_see_the_same_counts(make, at_once, clock):
    older(make, clock, HOUR / 2, 3)

    def count(_):
        site.recount()
        return site.nth_newest(LIMIT, clock.now)

    found = at_once(count, range(50))
    assert found == [clock.now - HOUR / 2] * 50
