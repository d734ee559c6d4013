"""IDENFY_PHONE_START_GUARD can refuse a start before anything is stored."""

import pytest
from django.db import connection
from rest_framework.exceptions import PermissionDenied, ValidationError

from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.records import Tally
from support.constants import NUMBER
from support.steps import START_URL, client_of, post_json, post_start, status_and_body

pytestmark = pytest.mark.django_db


@pytest.fixture
def set_guard(settings, idenfy_sandbox):
    def set_guard(guard):
        settings.IDENFY_PHONE_START_GUARD = guard

    return set_guard


@pytest.fixture
def guarded_numbers(set_guard):
    """The numbers that a guard which allows every start was called with."""
    numbers = []
    set_guard(lambda request, number: numbers.append(number))
    return numbers


def guard_that_raises(error):
    def guard(request, phone_number):
        raise error

    return guard


def test_guard_refuses_with_its_own_code(set_guard, api):
    set_guard("hosts.signup.captcha")
    body = {"detail": "Please solve the captcha.", "code": "captcha_failed"}
    assert status_and_body(post_start(api)) == (403, body)


def test_guard_allows_a_start(set_guard, api):
    set_guard("hosts.signup.captcha")
    body = {"phone_number": NUMBER, "captcha": "solved"}
    assert post_json(api, START_URL, body).status_code == 202


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (PermissionDenied("No.", "blocked"), 403, {"detail": "No.", "code": "blocked"}),
        (
            ValidationError({"detail": "Wrong."}, "captcha_failed"),
            400,
            {"detail": "Wrong.", "code": "captcha_failed"},
        ),
        (ValidationError({"captcha": ["Wrong."]}), 400, {"captcha": ["Wrong."]}),
    ],
)
def test_guard_may_raise_any_drf_error(set_guard, api, error, status, body):
    set_guard(guard_that_raises(error))
    assert status_and_body(post_start(api)) == (status, body)


@pytest.mark.django_db(transaction=True)
def test_what_the_guard_refuses_is_only_counted(
    set_guard, api, django_assert_num_queries
):
    set_guard("hosts.signup.captcha")
    with django_assert_num_queries(1):
        assert post_start(api).status_code == 403
    assert (PhoneVerification.objects.count(), StartLock.objects.count()) == (0, 0)
    assert Tally.objects.get().count == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_atomic", [True, False])
def test_guard_runs_outside_any_transaction(set_guard, api, request, is_atomic):
    if is_atomic:
        request.getfixturevalue("atomic_requests")
    in_transaction = []
    set_guard(lambda request, number: in_transaction.append(connection.in_atomic_block))
    assert post_start(api).status_code == 202
    assert in_transaction == [False]


def test_guard_receives_the_request_and_the_number(set_guard, api, user):
    calls = []
    set_guard(lambda request, number: calls.append((request.user, number)))
    post_start(api, number="+370 612 34567")
    assert calls == [(user, NUMBER)]


@pytest.mark.parametrize("number", ["nonsense", "+37052123456", None])
def test_guard_is_not_called_for_an_invalid_number(guarded_numbers, api, number):
    assert post_start(api, number=number).status_code == 400
    assert guarded_numbers == []


def test_guard_is_not_called_without_a_login(guarded_numbers):
    assert post_start(client_of(None)).status_code == 403
    assert guarded_numbers == []


def test_return_value_of_the_guard_is_ignored(set_guard, api):
    set_guard(lambda request, number: False)
    assert post_start(api).status_code == 202
