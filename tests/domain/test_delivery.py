"""A row is sent once, and each answer or fault leads it to the right status."""

import os
import signal
from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.utils import timezone

from django_idenfy_phone import delivery, gate, tasks
from django_idenfy_phone.models import PhoneVerification, ProviderGate
from django_idenfy_phone.signals import send_failed
from django_idenfy_phone.testing import age
from support import wire as w
from support.constants import NUMBER
from support.steps import logged_levels, outcome

pytestmark = pytest.mark.django_db
REQUEST_ID = "3d50e1584e0946e789e0185c009aaadf"
SENT = w.answer(200, {"request_id": REQUEST_ID})
NO_TIME = timedelta(0)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def failures():
    """The rows and failures that send_failed reported."""
    received = []

    def receiver(verification, failure, **kwargs):
        received.append((verification.pk, failure))

    send_failed.connect(receiver)
    yield received
    send_failed.disconnect(receiver)


def test_queued_row_is_sent_once(make, wire):
    wire.will(SENT)
    row = make("queued")
    assert [delivery.deliver(row.pk) for _ in range(3)] == [None, None, None]
    assert outcome(row) == "sent"
    assert [request.body for request in wire.requests] == [{"phone_number": NUMBER}]


@pytest.mark.parametrize("text", ["unknown", "+99912345678", "12345", ""])
def test_stored_text_that_is_no_number_is_not_sent(make, wire, caplog, failures, text):
    row = make("queued")
    with connection.cursor() as cursor:
        table = PhoneVerification._meta.db_table
        cursor.execute(f"UPDATE {table} SET phone_number = %s", [text])
    delivery.deliver(row.pk)
    assert (outcome(row), wire.requests) == ("number_refused", [])
    assert failures == [(row.pk, "number_refused")]
    assert logged_levels(caplog) == ["WARNING"]
    assert "cannot be read" in caplog.text


def test_message_for_a_deleted_row_logs_one_warning(wire, make, caplog):
    row = make("queued")
    row_id = row.pk
    row.delete()
    tasks.send_code(str(row_id))
    assert wire.requests == []
    assert logged_levels(caplog) == ["WARNING"]
    assert f"{str(row_id)[:8]} is gone" in caplog.text


@pytest.mark.parametrize(
    ("act", "failure", "provider_code"),
    [
        (w.refusal(400, "BAD_VALUE"), "number_refused", "BAD_VALUE"),
        (w.refusal(401, "UNAUTHORIZED"), "account", "UNAUTHORIZED"),
        (w.answer(403), "account", ""),
        (w.answer(404), "account", ""),
        (w.answer(405), "account", ""),
        (w.refusal(400, "PERMISSIONS_ERROR"), "account", "PERMISSIONS_ERROR"),
        (w.refusal(400, "PARTNER_CONTRACT_ERROR"), "account", "PARTNER_CONTRACT_ERROR"),
        (w.refusal(400, "INTERNAL_ERROR"), "unknown", "INTERNAL_ERROR"),
        (w.answer(500), "unknown", ""),
        (w.answer(503), "unknown", ""),
        (w.answer(200, b"<html>"), "unknown", ""),
        (w.answer(307, Location="http://127.0.0.1:1/"), "unknown", ""),
        (w.reset, "unknown", ""),
        (w.hang_up, "unknown", ""),
    ],
)
def test_final_answer_ends_the_row(make, wire, failures, act, failure, provider_code):
    wire.will(act)
    row = make("queued")
    assert delivery.deliver(row.pk) is None
    assert (outcome(row), row.provider_code) == (failure, provider_code)
    assert delivery.deliver(row.pk) is None
    assert failures == [(row.pk, failure)]
    assert len(wire.requests) == 1


def test_timeout_ends_the_row_as_unknown(make, wire, settings):
    settings.IDENFY_PHONE_TIMEOUT = 0.3
    wire.will(w.silence)
    row = make("queued")
    delivery.deliver(row.pk)
    assert outcome(row) == "unknown"


def test_rate_limited_send_waits_for_retry_after(make, wire):
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7"), SENT)
    row = make("queued")
    assert delivery.deliver(row.pk) == 7 * SECOND
    assert outcome(row) == "queued"
    assert delivery.deliver(row.pk) is None
    assert len(wire.requests) == 1
    age(row, timedelta(seconds=7))
    delivery.deliver(row.pk)
    assert outcome(row) == "sent"


@pytest.mark.parametrize(
    "act",
    [
        w.refusal(429, "TOO_MANY_REQUESTS"),
        w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="-5"),
        w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="soon"),
        w.refusal(400, "TOO_MANY_REQUESTS"),
        w.answer(429),
    ],
)
def test_rate_limited_send_without_retry_after_waits_with_jitter(
    make, wire, clock, act
):
    wire.will(act)
    row = make("queued")
    assert NO_TIME < delivery.deliver(row.pk) <= 4 * SECOND
    assert outcome(row) == "queued"
    assert gate.current().sends_paused_until == row.next_send_at


@pytest.mark.parametrize(("attempts", "longest"), [(0, 4), (1, 8), (2, 16), (3, 30)])
def test_longest_wait_doubles_with_each_attempt(
    make, wire, settings, attempts, longest
):
    settings.IDENFY_PHONE_API_URL = "http://127.0.0.1:1"
    settings.IDENFY_PHONE_SEND_RATE = None
    delays = [
        delivery.deliver(make("queued", send_attempts=attempts).pk) for _ in range(40)
    ]
    longest *= SECOND
    assert NO_TIME <= min(delays) < longest / 2 < max(delays) <= longest


def test_wait_past_the_deadline_ends_the_row_and_pauses_others(
    make, wire, failures, clock
):
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="86400"))
    row = make("queued")
    assert delivery.deliver(row.pk) is None
    assert outcome(row) == "rate_limited"
    assert failures == [(row.pk, "rate_limited")]
    assert gate.current().sends_paused_until == clock.now + 5 * MINUTE


@pytest.mark.parametrize(
    ("url", "failure"), [(None, "rate_limited"), ("http://127.0.0.1:1", "unreachable")]
)
def test_send_attempts_are_bounded(make, wire, settings, url, failure):
    wire.will(w.answer(429))
    settings.IDENFY_PHONE_API_URL = url or wire.url
    settings.IDENFY_PHONE_SEND_DEADLINE = timedelta(hours=1)
    row = make("queued", send_by=timezone.now() + timedelta(hours=1))
    for _ in range(9):
        delivery.deliver(row.pk)
        age(row, MINUTE / 2)
    assert (outcome(row), row.send_attempts) == (failure, 5)


def test_row_is_sent_when_idenfy_is_reachable_again(make, wire, settings):
    settings.IDENFY_PHONE_API_URL = "http://127.0.0.1:1"
    row = make("queued")
    assert NO_TIME <= delivery.deliver(row.pk) <= 4 * SECOND
    settings.IDENFY_PHONE_API_URL = wire.url
    wire.will(SENT)
    age(row, timedelta(seconds=5))
    delivery.deliver(row.pk)
    assert outcome(row) == "sent"


def test_row_past_its_deadline_is_not_sent(make, wire, failures):
    row = make("queued")
    age(row, timedelta(minutes=4))
    assert delivery.deliver(row.pk) is None
    assert (outcome(row), wire.requests) == ("too_late", [])
    assert failures == [(row.pk, "too_late")]


@pytest.mark.django_db(transaction=True)
def test_late_answer_turns_a_failed_row_into_sent(make, wire):
    row = make("queued")

    def answer_after_the_lease(sock):
        age(row, MINUTE)
        assert PhoneVerification.objects.settle() == [row.pk]
        connection.close()
        SENT(sock)

    wire.will(answer_after_the_lease)
    delivery.deliver(row.pk)
    assert outcome(row) == "sent"


@pytest.fixture
def frozen_after_claim(clock):
    """23 seconds pass between the claim and the next statement."""

    def wrapper(execute, sql, params, many, context):
        result = execute(sql, params, many, context)
        if sql.startswith("UPDATE") and "send_attempts" in sql and not frozen:
            frozen.append(True)
            clock.move(timedelta(seconds=23))
        return result

    frozen = []
    with connection.execute_wrapper(wrapper):
        yield frozen


def test_worker_frozen_after_the_claim_does_not_connect(make, wire, frozen_after_claim):
    row = make("queued")
    assert delivery.deliver(row.pk) > timedelta(0)
    assert frozen_after_claim
    assert (outcome(row), wire.requests) == ("queued", [])


def test_request_id_of_another_row_ends_the_row_as_unknown(make, wire, caplog):
    first = make("sent", request_id=REQUEST_ID)
    before = PhoneVerification.objects.filter(pk=first.pk).values().get()
    wire.will(SENT)
    row = make("queued")
    delivery.deliver(row.pk)
    assert outcome(row) == "unknown"
    assert PhoneVerification.objects.filter(pk=first.pk).values().get() == before
    assert logged_levels(caplog) == ["CRITICAL", "WARNING"]


def test_refused_key_logs_critical_once_a_minute(make, wire, caplog):
    wire.will(w.answer(401))
    for wait in (0, 30, 31):
        row = make("queued")
        age(row, timedelta(seconds=wait))
        ProviderGate.objects.update(account_paused_until=None)
        delivery.deliver(row.pk)
    levels = logged_levels(caplog)
    assert levels == ["WARNING", "CRITICAL", "WARNING", "WARNING", "CRITICAL"]


def test_duplicate_key_in_the_answer_ends_the_row_as_unknown(make, wire):
    body = f'{{"request_id": "{"a" * 32}", "request_id": "{"b" * 32}"}}'
    wire.will(w.answer(200, body.encode()))
    row = make("queued")
    delivery.deliver(row.pk)
    assert outcome(row) == "unknown"


def test_soft_time_limit_in_the_request_ends_the_row_as_unknown(make, wire):
    def raise_soft_time_limit(signum, frame):
        raise SoftTimeLimitExceeded

    def reach_the_limit(sock):
        os.kill(os.getpid(), signal.SIGALRM)
        w.silence(sock)

    wire.will(reach_the_limit)
    row = make("queued")
    previous = signal.signal(signal.SIGALRM, raise_soft_time_limit)
    try:
        with pytest.raises(SoftTimeLimitExceeded):
            delivery.deliver(row.pk)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert (outcome(row), len(wire.requests)) == ("unknown", 1)
