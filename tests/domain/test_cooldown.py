"""A number can be sent to again when its cooldown ends, to the microsecond."""

from datetime import timedelta

import pytest
from django.utils import timezone

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


def test_resend_at_depends_on_this_row_only(no_limits, make, user):
    for minutes in (30, 20, 10):
        make(user=None, created_at=timezone.now() - minutes * MINUTE)
    row = start_and_expire(user)
    assert row.resend_at == row.created_at + MINUTE
    assert refusal_of(user) == ("cooldown", 5 * MINUTE)


def test_later_start_of_another_caller_does_not_move_resend_at(user, clock):
    row = start_and_expire(user)
    clock.move(MINUTE)
    start_and_expire(None)
    row = services.get_verification(row.pk, user=user)
    assert row.resend_at == row.created_at + MINUTE


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
