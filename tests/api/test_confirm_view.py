"""The confirm view answers each request with exactly this status, body and headers."""

import uuid
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import InsideTransaction
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_verified
from support.constants import NUMBER
from support.steps import (
    NO_CACHE,
    confirm_url,
    detail_url,
    post_code,
    post_json,
    post_start,
    status_and_body,
    verification_body,
)
from support.wire import answer, refusal, reset

pytestmark = pytest.mark.django_db

UNAVAILABLE = {
    "detail": "We cannot verify phone numbers right now. Please try again later.",
    "code": "provider_unavailable",
}


@pytest.mark.django_db(transaction=True)
def test_number_is_verified_from_start_to_signal(api, user, idenfy_sandbox):
    received = []

    def receiver(verification, user, **kwargs):
        received.append((verification.pk, user))

    phone_verified.connect(receiver)
    started = post_start(api)
    code = idenfy_sandbox.code_for(NUMBER)
    confirmed = post_json(api, f"{started['Location']}confirm/", {"code": code})
    assert confirmed.json()["is_verified"] is True
    assert received == [(uuid.UUID(started.json()["id"]), user)]
    assert PhoneVerification.objects.verified(user=user, phone_number=NUMBER).exists()


def test_correct_code_answers_200_and_true(api, idenfy_sandbox):
    post_start(api)
    row = PhoneVerification.objects.get()
    confirmed = post_code(api, row, idenfy_sandbox.code_for(NUMBER))
    body = verification_body(row, status="verified", is_verified=True)
    assert status_and_body(confirmed) == (200, body)
    assert confirmed["Cache-Control"] == NO_CACHE


def test_confirm_after_success_sends_no_request_to_idenfy(api, idenfy_sandbox):
    post_start(api)
    row = PhoneVerification.objects.get()
    first = post_code(api, row, idenfy_sandbox.code_for(NUMBER))
    repeated = [post_code(api, row, code) for code in ("0000", "1234")]
    assert [status_and_body(each) for each in repeated] == [status_and_body(first)] * 2
    assert idenfy_sandbox.state.checks == 1


def test_wrong_code_answers_200_and_false(api, make, every_code_is_wrong):
    row = make()
    confirmed = post_code(api, row)
    body = verification_body(row, checks_left=2)
    assert status_and_body(confirmed) == (200, body)


def test_wrong_code_after_a_lost_check_sets_code_spent(api, make, every_code_is_wrong):
    row = make(checks=1)
    confirmed = post_code(api, row)
    body = verification_body(row, checks_left=1, code_spent=True)
    assert status_and_body(confirmed) == (200, body)


def test_last_wrong_code_locks_the_verification(api, make, every_code_is_wrong):
    row = make(checks=2, checks_wrong=2)
    confirmed = post_code(api, row)
    body = verification_body(row, status="locked", code_spent=True)
    assert status_and_body(confirmed) == (200, body)


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"code": ["This field is required."]}),
        ({"code": None}, {"code": ["This field may not be null."]}),
        ({"code": "12345"}, {"code": ["Enter the 4 digits of the code."]}),
    ],
)
def test_field_errors_of_confirm_have_the_drf_shape(api, make, body, errors):
    assert status_and_body(post_json(api, confirm_url(make()), body)) == (400, errors)


CONFLICTS = [
    (
        "queued",
        {},
        {
            "detail": "The code has not been sent yet. Please try again in a moment.",
            "code": "not_sent_yet",
            "retry_after": 2,
        },
    ),
    (
        "sent",
        {"checks": 1},
        {
            "detail": "A code is being checked. Please try again in a moment.",
            "code": "check_in_progress",
            "retry_after": 2,
        },
    ),
]


@pytest.mark.parametrize(("status", "fields", "body"), CONFLICTS)
def test_409_says_when_to_try_again(api, make, wire, status, fields, body):
    row = make(status, **fields, checking_until=timezone.now() + timedelta(seconds=20))
    refused = post_code(api, row)
    assert (status_and_body(refused), refused["Retry-After"]) == ((409, body), "2")
    assert wire.requests == []


FINAL_STATUSES = [
    ("expired", "", "This code has expired. Please ask for a new one."),
    ("locked", "", "Too many wrong codes. Please ask for a new code."),
    ("failed", "account", "The code could not be sent. Please ask for a new one."),
]


@pytest.mark.parametrize(("status", "failure", "text"), FINAL_STATUSES)
def test_410_names_the_final_status(api, make, wire, status, failure, text):
    refused = post_code(api, make(status, failure=failure))
    assert status_and_body(refused) == (410, {"detail": text, "code": status})
    assert "Retry-After" not in refused
    assert wire.requests == []


def test_503_repeats_the_retry_after_of_idenfy(api, make, wire):
    wire.will(refusal(429, "TOO_MANY_REQUESTS", Retry_After="7"))
    row = make()
    unavailable = post_code(api, row)
    assert status_and_body(unavailable) == (503, UNAVAILABLE | {"retry_after": 7})
    assert unavailable["Retry-After"] == "7"
    body = verification_body(row, checks_left=3)
    assert status_and_body(api.get(detail_url(row))) == (200, body)


def test_503_for_a_refused_account_refunds_the_check(api, make, wire):
    wire.will(refusal(401, "UNAUTHORIZED"))
    row = make()
    unavailable = post_code(api, row)
    assert status_and_body(unavailable) == (503, UNAVAILABLE | {"retry_after": 2})
    assert unavailable["Retry-After"] == "2"
    body = verification_body(row, checks_left=3)
    assert status_and_body(api.get(detail_url(row))) == (200, body)


def test_503_for_a_refused_connection_refunds_the_check(api, make, idenfy_sandbox):
    idenfy_sandbox.stop()
    row = make()
    unavailable = post_code(api, row)
    assert status_and_body(unavailable) == (503, UNAVAILABLE | {"retry_after": 2})
    assert unavailable["Retry-After"] == "2"
    body = verification_body(row, checks_left=3)
    assert status_and_body(api.get(detail_url(row))) == (200, body)


@pytest.mark.parametrize(
    "act",
    [answer(500), reset, answer(200, {"is_verified": "true"})],
    ids=["500", "reset", "text"],
)
def test_503_for_a_lost_answer_keeps_the_check_spent(api, make, wire, act):
    wire.will(act)
    row = make()
    unknown = post_code(api, row)
    text = "We could not find out whether the code is right. Please try again."
    body = {"detail": text, "code": "check_unknown"}
    assert status_and_body(unknown) == (503, body)
    row.refresh_from_db()
    assert (row.checks, row.checks_refunded, row.is_verified) == (1, 0, False)


@pytest.mark.django_db(transaction=True)
def test_check_is_committed_before_the_request_to_idenfy(
    api, make, wire, atomic_requests
):
    committed = []

    def read_checks(sock):
        committed.append(PhoneVerification.objects.get().checks)
        connections.close_all()
        answer(200, {"is_verified": False})(sock)

    wire.will(read_checks)
    post_code(api, make())
    assert committed == [1]


def test_confirm_inside_a_transaction_sends_no_request_to_idenfy(user, make, wire):
    row = make()
    with transaction.atomic(), pytest.raises(InsideTransaction):
        services.confirm_verification(row.pk, "1234", user=user)
    row.refresh_from_db()
    assert (row.checks, wire.requests) == (0, [])


def test_confirm_view_inside_a_transaction_names_the_remedy(api, make, wire):
    with transaction.atomic(), pytest.raises(InsideTransaction, match="non_atomic"):
        post_code(api, make())
    assert wire.requests == []
