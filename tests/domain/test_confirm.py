"""A confirm spends one check, and gives it back only where iDenfy did not judge."""

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import (
    CheckInProgress,
    CheckUnknown,
    InvalidCode,
    NotSentYet,
    ProviderUnavailable,
    VerificationError,
    VerificationExpired,
    VerificationFailed,
    VerificationLocked,
    VerificationNotFound,
)
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_verified
from django_idenfy_phone.testing import age
from support import wire as w

pytestmark = pytest.mark.django_db
TRUE = w.answer(200, {"is_verified": True})
FALSE = w.answer(200, {"is_verified": False})


def confirm(row, code="1234"):
    return services.confirm_verification(row.pk, code, user=row.user)


@pytest.fixture
def sent(make):
    return make("sent")


def test_right_code_verifies(sent, wire):
    wire.will(TRUE)
    row = confirm(sent, "0042")
    assert (row.status, row.is_verified) == ("verified", True)
    assert wire.requests[0].body == {
        "request_id": sent.request_id,
        "received_code": "0042",
    }


def test_confirm_of_a_verified_row_does_not_ask_idenfy(sent, wire):
    wire.will(TRUE)
    confirm(sent)
    assert confirm(sent, "9999").is_verified
    assert len(wire.requests) == 1


def test_wrong_code_spends_one_check(sent, wire):
    wire.will(FALSE)
    row = confirm(sent)
    assert (row.status, row.is_verified, row.checks_left) == ("sent", False, 2)
    assert not row.code_spent


def test_last_wrong_code_locks_the_row(sent, wire):
    wire.will(FALSE)
    statuses = [confirm(sent).status for _ in range(3)]
    assert statuses == ["sent", "sent", "locked"]
    with pytest.raises(VerificationLocked):
        confirm(sent)
    assert len(wire.requests) == 3


@pytest.mark.parametrize("code", ["123", "12345", "12 4", "123٤", "12\n34", 1234, None])
def test_invalid_code_spends_no_check(sent, wire, code):
    with pytest.raises(InvalidCode):
        confirm(sent, code)
    sent.refresh_from_db()
    assert (sent.checks, wire.requests) == (0, [])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("queued", NotSentYet),
        ("sending", NotSentYet),
        ("failed", VerificationFailed),
        ("expired", VerificationExpired),
        ("locked", VerificationLocked),
    ],
)
def test_only_a_sent_code_can_be_checked(make, wire, status, error):
    row = make(status)
    with pytest.raises(error):
        confirm(row)
    assert wire.requests == []


def test_row_of_another_user_is_not_found(sent, wire, django_user_model):
    sent.user = django_user_model.objects.create_user("rasa")
    with pytest.raises(VerificationNotFound):
        confirm(sent)


def test_check_is_refused_while_another_is_in_progress(make, wire):
    row = make("sent", checks=1, checking_until=timezone.now() + timedelta(seconds=9))
    with pytest.raises(CheckInProgress):
        confirm(row)
    assert wire.requests == []


@pytest.mark.django_db(transaction=True)
def test_late_row_can_be_read_inside_a_transaction(sent, user):
    age(sent, timedelta(minutes=11))
    with transaction.atomic():
        row = services.get_verification(sent.pk, user=user)
    assert row.status == "sent"
    assert services.get_verification(sent.pk, user=user).status == "expired"


# A check whose answer was lost


@pytest.mark.parametrize(
    "act",
    [
        w.reset,
        w.hang_up,
        w.answer(500),
        w.answer(404),
        w.answer(200, b"<html>"),
        w.answer(200, {"is_verified": "true"}),
        w.answer(200, b'{"is_verified": false, "is_verified": true}'),
    ],
)
def test_lost_answer_leaves_the_check_spent(sent, wire, act):
    wire.will(act)
    with pytest.raises(CheckUnknown):
        confirm(sent)
    sent.refresh_from_db()
    assert (sent.status, sent.checks, sent.checks_wrong) == ("sent", 1, 0)


def test_false_after_a_lost_answer_means_the_code_is_spent(sent, wire):
    wire.will(w.hang_up, FALSE)
    with pytest.raises(CheckUnknown):
        confirm(sent)
    age(sent, timedelta(seconds=20))
    row = confirm(sent)
    assert (row.is_verified, row.code_spent) == (False, True)


def test_true_after_a_lost_answer_verifies(sent, wire):
    wire.will(w.hang_up, TRUE)
    with pytest.raises(CheckUnknown):
        confirm(sent)
    age(sent, timedelta(seconds=20))
    row = confirm(sent)
    assert (row.is_verified, row.code_spent) == (True, False)


def test_accepted_check_without_an_answer_spends_the_code(
    make, idenfy_sandbox, settings, user
):
    settings.IDENFY_PHONE_TIMEOUT = 0.3
    row = make("queued", phone_number="+12025550120")
    code = idenfy_sandbox.code_for("+12025550120")
    with pytest.raises(CheckUnknown):
        confirm(row, code)
    assert idenfy_sandbox.state.checks_for(PhoneVerification.objects.get().request_id)
    settings.IDENFY_PHONE_TIMEOUT = 12
    again = confirm(row, code)
    assert (again.is_verified, again.checks_left) == (False, 1)
    assert again.code_spent


def test_next_check_after_a_lost_answer_need_not_wait(sent, wire):
    wire.will(w.hang_up, TRUE)
    with pytest.raises(CheckUnknown):
        confirm(sent)
    assert confirm(sent).is_verified


# A check that iDenfy did not judge


@pytest.mark.parametrize(
    ("act", "seconds"),
    [
        (w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7"), 7),
        (w.refusal(400, "TOO_MANY_REQUESTS"), 5),
        (w.answer(401), 2),
        (w.answer(403), 2),
    ],
)
def test_refused_check_is_refunded(sent, wire, act, seconds):
    wire.will(act)
    with pytest.raises(ProviderUnavailable) as caught:
        confirm(sent)
    sent.refresh_from_db()
    assert (sent.checks_left, sent.checks_refunded) == (3, 1)
    assert caught.value.retry_after == timedelta(seconds=seconds)


def test_unreachable_idenfy_spends_no_check(sent, wire, settings):
    settings.IDENFY_PHONE_API_URL = "http://127.0.0.1:1"
    with pytest.raises(ProviderUnavailable):
        confirm(sent)
    sent.refresh_from_db()
    assert sent.checks_left == 3


def test_idenfy_is_not_asked_while_checks_are_paused(sent, make, wire, clock):
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7"), TRUE)
    other, proven = make("sent"), make("verified")
    with pytest.raises(ProviderUnavailable):
        confirm(sent)
    with pytest.raises(ProviderUnavailable) as caught:
        confirm(other)
    assert caught.value.retry_after == timedelta(seconds=7)
    assert confirm(proven).is_verified
    assert len(wire.requests) == 1
    age(other, timedelta(seconds=7))
    assert confirm(other).is_verified


def test_refunds_are_bounded(sent, wire):
    wire.will(w.answer(429))
    errors = Counter()
    for _ in range(9):
        with pytest.raises(VerificationError) as caught:
            confirm(sent)
        age(sent, timedelta(seconds=5))
        errors[type(caught.value)] += 1
    assert errors == {ProviderUnavailable: 6, VerificationLocked: 3}
    assert len(wire.requests) == 6


# Expiry


MILLISECOND = timedelta(milliseconds=1)


def test_code_is_checked_until_it_expires(sent, wire, clock):
    wire.will(TRUE)
    clock.now = sent.expires_at - MILLISECOND
    assert confirm(sent).is_verified


@pytest.mark.parametrize("late", [timedelta(0), MILLISECOND])
def test_expired_code_is_not_checked(sent, wire, clock, late):
    clock.now = sent.expires_at + late
    with pytest.raises(VerificationExpired):
        confirm(sent)
    assert wire.requests == []


@pytest.mark.django_db(transaction=True)
def test_true_for_a_check_begun_before_expiry_verifies_the_row(sent, wire):
    def answer_late(sock):
        age(sent, timedelta(minutes=11))
        PhoneVerification.objects.settle()
        sent.refresh_from_db()
        statuses.append(sent.status)
        connections.close_all()
        TRUE(sock)

    statuses = []
    wire.will(answer_late)
    assert confirm(sent).is_verified
    assert statuses == ["expired"]


# Races


@pytest.mark.django_db(transaction=True)
def test_50_confirms_of_the_right_code_make_one_request(sent, wire, settings, at_once):
    announced = []
    all_refused = threading.Event()

    def receiver(verification, **kwargs):
        announced.append(verification.pk)

    def answer_when_others_are_refused(sock):
        for _ in range(30):
            if all_refused.wait(1):
                break
            # The client would time out without it.
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        TRUE(sock)

    def attempt(_):
        try:
            return confirm(sent).is_verified
        except VerificationError as error:
            refusals.append(1)
            if len(refusals) == 49:
                all_refused.set()
            return type(error)

    refusals = []
    phone_verified.connect(receiver)
    wire.will(answer_when_others_are_refused)
    settings.IDENFY_PHONE_TIMEOUT = 60
    results = Counter(at_once(attempt, range(50)))
    assert results == {True: 1, CheckInProgress: 49}
    assert all(at_once(lambda _: confirm(sent).is_verified, range(50)))
    assert (len(wire.requests), announced) == (1, [sent.pk])


@pytest.mark.django_db(transaction=True)
def test_50_confirms_of_wrong_codes_make_three_requests(sent, wire, at_once):
    def attempt(number):
        try:
            return confirm(sent, f"{number:04}").is_verified
        except VerificationError:
            return None

    wire.will(FALSE)
    at_once(attempt, range(50))
    at_once(attempt, range(50))
    assert 1 <= len(wire.requests) <= 3
    for number in range(3):
        attempt(number)
    assert len(wire.requests) == 3
    sent.refresh_from_db()
    assert sent.checks == sent.checks_wrong == 3


@pytest.fixture
def attempt(sent):
    """Confirm with a code, and return the class of the error that this raises."""

    def attempt(number):
        with pytest.raises(VerificationError) as caught:
            confirm(sent, f"{number:04}")
        return caught.type

    return attempt


@pytest.mark.django_db(transaction=True)
def test_50_confirms_under_a_rate_limit_make_at_most_six_requests(
    sent, wire, at_once, attempt
):
    wire.will(w.answer(429))
    for _ in range(3):
        at_once(attempt, range(50))
        age(sent, timedelta(seconds=5))
    assert 3 <= len(wire.requests) <= 6
    sent.refresh_from_db()
    assert sent.checks == sent.checks_refunded == len(wire.requests)


@pytest.mark.django_db(transaction=True)
def test_50_confirms_while_checks_are_paused_make_no_request(
    sent, wire, at_once, attempt
):
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="60"))
    attempt(0)
    assert at_once(attempt, range(50)) == [ProviderUnavailable] * 50
    sent.refresh_from_db()
    assert len(wire.requests) == sent.checks == sent.checks_refunded == 1
