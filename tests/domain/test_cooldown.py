"""A number can be sent to again when its cooldown ends, to the microsecond."""

from datetime import datetime, timedelta

import pytest

from django_idenfy_phone import services
from django_idenfy_phone.conf import DEFAULT_SEND_LIMITS
from django_idenfy_phone.models import PhoneVerification
from support.steps import (
    UNSENT_FAILURES,
    code_and_wait,
    post_start,
    refusal_of,
    start_and_expire,
)

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("account", "before_summer_time"),
]

MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def no_limits(settings):
    settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(DEFAULT_SEND_LIMITS, ())


# Length


@pytest.mark.parametrize(
    ("steps", "waits"),
    [
        ((60, 120, 300), [60, 120, 300, 300, 300]),
        ([5], [5, 5, 5]),
        ((0, 30), [30, 30]),
    ],
)
def test_cooldown_grows_with_each_send(settings, no_limits, user, clock, steps, waits):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = steps
    if steps[0] == 0:
        start_and_expire(user)
    for seconds in waits:
        start_and_expire(user)
        assert refusal_of(user) == ("cooldown", seconds * SECOND)
        clock.move(seconds * SECOND - MICROSECOND)
        assert refusal_of(user) == ("cooldown", MICROSECOND)
        clock.move(MICROSECOND)


def test_cooldown_counts_only_sends_of_the_last_day(no_limits, user, clock):
    for _ in range(3):
        start_and_expire(user)
        clock.move(HOUR)
    clock.move(DAY - 2 * HOUR)
    start_and_expire(user)
    # The send of 23 hours ago still counts, those of 24 and 25 no longer.
    assert refusal_of(user) == ("cooldown", 120 * SECOND)


@pytest.mark.parametrize("failure", UNSENT_FAILURES)
def test_unsent_row_does_not_lengthen_the_cooldown(
    no_limits, make, user, clock, failure
):
    for _ in range(3):
        make("failed", failure=failure)
    assert refusal_of(user) == ("cooldown", 10 * SECOND)
    clock.move(10 * SECOND)
    start_and_expire(user)
    assert refusal_of(user) == ("cooldown", 60 * SECOND)


def test_unsent_row_does_not_hide_the_send_before_it(no_limits, make, user, clock):
    make("expired")
    clock.move(30 * SECOND)
    make("failed", failure="unreachable")
    assert refusal_of(user) == ("cooldown", 30 * SECOND)
    clock.move(25 * SECOND)
    assert refusal_of(user) == ("cooldown", 5 * SECOND)


def test_cooldown_of_an_unsent_row_is_at_most_that_of_a_send(settings, make, user):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (3, 60)
    make("failed", failure="account")
    assert refusal_of(user) == ("cooldown", 3 * SECOND)


# Other callers


def test_cooldown_of_a_number_holds_for_every_caller(user, django_user_model):
    rasa = django_user_model.objects.create_user("rasa")
    start_and_expire(rasa, network="8.8.8.8")
    assert refusal_of(user, network="9.9.9.9") == ("cooldown", MINUTE)
    assert refusal_of(None) == ("cooldown", MINUTE)


def test_deleted_account_resets_no_cooldown(user):
    start_and_expire(user, network="9.9.9.9")
    user.delete()
    assert refusal_of(None, network="9.9.9.9") == ("cooldown", MINUTE)


# resend_at


def assert_can_start_from(moment, user, clock, **options):
    """Move the clock to ``moment``, before which a start must be refused."""
    clock.now = moment - MICROSECOND
    assert refusal_of(user, **options)[1] == MICROSECOND
    clock.now = moment


def test_start_at_resend_at_is_the_first_that_is_allowed(user, clock):
    first_start = clock.now
    for _ in range(31):
        row = start_and_expire(user)
        assert_can_start_from(services.resend_at(row, user=user), user, clock)
    assert clock.now - first_start > 60 * DAY


def test_cooldown_shortens_when_a_send_leaves_the_last_day(no_limits, user, clock):
    noon = clock.now
    for age in (DAY, 5 * MINUTE, MINUTE):
        clock.now = noon - age
        row = start_and_expire(user)
    clock.now = noon - MINUTE + MICROSECOND
    assert services.resend_at(row, user=user) == noon + MINUTE
    assert_can_start_from(noon + MINUTE, user, clock)


@pytest.mark.parametrize("kind", DEFAULT_SEND_LIMITS)
@pytest.mark.parametrize("sends", [1, 3])
def test_resend_at_knows_each_limit_that_own_rows_reach(
    no_limits, settings, user, clock, kind, sends
):
    settings.IDENFY_PHONE_SEND_LIMITS |= {kind: (f"{sends}/2h", f"{sends}/3h")}
    first_start, network = clock.now, "8.8.8.8"
    for _ in range(sends):
        clock.move(10 * MINUTE)
        row = start_and_expire(user, network=network)
    moment = services.resend_at(row, user=user)
    assert moment == first_start + 10 * MINUTE + 3 * HOUR
    assert_can_start_from(moment, user, clock, network=network)


@pytest.mark.parametrize("kind", ["number", "network", "block", "site"])
def test_resend_at_of_a_visitor_knows_what_the_one_row_reaches(
    no_limits, settings, clock, kind
):
    settings.IDENFY_PHONE_SEND_LIMITS |= {kind: ("1/2h",)}
    row = start_and_expire(None, network="8.8.8.8")
    moment = services.resend_at(row)
    assert moment == clock.now + 2 * HOUR
    assert_can_start_from(moment, None, clock, network="8.8.8.8")


def test_resend_at_knows_the_starts_of_the_user_for_other_numbers(user, clock):
    first_start = clock.now
    for n in range(5):
        row = start_and_expire(user, f"+3706123450{n}")
        clock.move(MINUTE)
    moment = services.resend_at(row, user=user)
    assert moment == first_start + HOUR
    assert_can_start_from(moment, user, clock, number="+37061234504")


def test_starts_for_other_numbers_lengthen_no_cooldown(no_limits, user, clock):
    for n in range(3):
        row = start_and_expire(user, f"+3706123450{n}")
    assert services.resend_at(row, user=user) == clock.now + MINUTE


@pytest.mark.parametrize(
    ("failure", "provider_code", "resend_at"),
    [
        ("account", "PARTNER_CONTRACT_ERROR", HOUR),
        ("account", "UNAUTHORIZED", 10 * SECOND),
        ("unreachable", "", 10 * SECOND),
        ("unknown", "", DAY),
        ("number_refused", "", DAY),
    ],
)
def test_resend_at_counts_a_failed_row_as_the_limits_do(
    no_limits, settings, make, user, clock, failure, provider_code, resend_at
):
    settings.IDENFY_PHONE_SEND_LIMITS |= {"number": ("1/h", "1/d")}
    row = make("failed", failure=failure, provider_code=provider_code)
    assert services.resend_at(row, user=user) == clock.now + resend_at
    assert_can_start_from(clock.now + resend_at, user, clock)


@pytest.mark.parametrize("minutes", [0, 10])
def test_resend_at_shows_nothing_of_the_starts_of_others(
    make, user, django_user_model, clock, minutes
):
    row = start_and_expire(user)
    rasa = django_user_model.objects.create_user("rasa")
    for fields in [{"user": rasa}, {"user": None, "is_anonymous": True}] * 5:
        make("expired", created_at=clock.now - minutes * MINUTE, **fields)
    assert services.resend_at(row, user=user) == row.created_at + MINUTE


def test_visitor_sees_the_cooldown_of_one_row_only(no_limits, clock):
    first = start_and_expire(None)
    clock.move(HOUR)
    second = start_and_expire(None)
    moments = [services.resend_at(row) - row.created_at for row in (first, second)]
    assert moments == [MINUTE, MINUTE]


def test_user_who_sees_a_row_of_a_visitor_sees_own_starts_as_well(
    no_limits, user, clock
):
    start_and_expire(user)
    clock.move(HOUR)
    row = start_and_expire(None)
    assert services.resend_at(row, user=user) == row.created_at + 2 * MINUTE
    assert services.resend_at(row) == row.created_at + MINUTE


@pytest.mark.parametrize("is_known", [True, False])
def test_cleared_number_can_be_started_at_once(user, clock, is_known):
    for _ in range(3):
        row = start_and_expire(user)
        clock.now = services.resend_at(row, user=user)
    clock.now = row.created_at + SECOND
    services.unblock(phone_number="+37061234567")
    assert services.resend_at(row, user=user if is_known else None) <= clock.now
    clock.move(MICROSECOND)
    again = start_and_expire(user)
    assert services.resend_at(again, user=user) == clock.now + MINUTE


def test_resend_at_of_an_old_row_does_not_move(make, user, clock):
    row = make("expired")
    for age in (MINUTE, HOUR, 100 * DAY):
        clock.now = row.created_at + age
        assert services.resend_at(row, user=user) == row.created_at + MINUTE


@pytest.mark.parametrize("is_known", [True, False])
def test_resend_at_takes_one_query_and_one_for_clearings(
    make, user, clock, django_assert_num_queries, is_known
):
    row = make("expired")
    with django_assert_num_queries(2):
        services.resend_at(row, user=user if is_known else None)
    clock.move(DAY)
    with django_assert_num_queries(1):
        services.resend_at(row, user=user if is_known else None)


def test_resend_at_beside_other_rows_of_the_user_takes_three_queries(
    make, user, django_assert_num_queries
):
    rows = [make("expired", purpose=f"{n}") for n in range(30)]
    with django_assert_num_queries(3):
        services.resend_at(rows[0], user=user)


def test_api_shows_the_growing_cooldown(api, make, user, clock):
    make("expired")
    clock.move(HOUR)
    started = post_start(api).json()
    shown = api.get(f"/phone/{started['id']}/").json()
    moments = [datetime.fromisoformat(body["resend_at"]) for body in (started, shown)]
    assert moments == [clock.now + 2 * MINUTE] * 2


# Retry-After


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (timedelta(0), 60),
        (MICROSECOND, 60),
        (SECOND - MICROSECOND, 60),
        (SECOND, 59),
        (58.5 * SECOND, 2),
        (MINUTE - MICROSECOND, 1),
    ],
)
def test_retry_after_is_the_next_whole_second(api, make, clock, age, seconds):
    make()
    clock.move(age)
    assert code_and_wait(post_start(api)) == ("cooldown", seconds)


def test_start_at_its_retry_after_is_accepted(api, make, clock):
    make()
    clock.move(0.3 * SECOND)
    _code, seconds = code_and_wait(post_start(api))
    clock.move(seconds * SECOND)
    assert post_start(api).status_code == 202


def test_start_a_second_before_its_retry_after_is_refused(api, make, clock):
    make()
    clock.move(0.3 * SECOND)
    _code, seconds = code_and_wait(post_start(api))
    clock.move((seconds - 1) * SECOND)
    assert code_and_wait(post_start(api)) == ("cooldown", 1)


def test_client_that_obeys_retry_after_is_refused_once_per_start(api, clock, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ()}
    first_start, statuses = clock.now, []
    while len(statuses) < 31:
        response = post_start(api)
        PhoneVerification.objects.update(status="expired")
        statuses.append(response.status_code)
        clock.move(int(response.headers.get("Retry-After", 0)) * SECOND)
    assert statuses == [202, 429] * 15 + [202]
    assert clock.now - first_start == 30 * DAY


def test_visitor_with_known_starts_sees_the_growing_cooldown(clock):
    known = []
    for seconds in (60, 120):
        known.append(start_and_expire(None))
        newest, *earlier = reversed(known)
        shown = services.resend_at(newest, earlier=earlier)
        assert shown == newest.created_at + seconds * SECOND
        clock.move(seconds * SECOND)
    third = start_and_expire(None)
    # Three in ten minutes: the first one leaves the window last.
    shown = services.resend_at(third, earlier=known)
    assert shown == known[0].created_at + 10 * MINUTE


def test_start_for_another_number_is_no_earlier_one(clock):
    other = start_and_expire(None, "+37060012346")
    clock.move(SECOND)
    row = start_and_expire(None)
    assert services.resend_at(row, earlier=[other]) == row.created_at + 60 * SECOND


def test_cleared_number_forgets_earlier_starts(clock):
    row = start_and_expire(None)
    clock.move(SECOND)
    services.unblock(phone_number=row.phone_number.as_e164)
    row = services.get_verification(row.pk, user=None)
    assert services.resend_at(row, earlier=[row]) == row.created_at
