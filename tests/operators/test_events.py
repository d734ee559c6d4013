"""Each thing that happens to a verification is one log line, without personal data."""

import logging
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from django_idenfy_phone import delivery, maintenance, ownership, services
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification
from hosts.accounts.models import Profile
from support import wire as w
from support.constants import MARKERS, NUMBER
from support.steps import post_start, start

pytestmark = pytest.mark.django_db
SENT = w.answer(200, {"request_id": "r" * 32})
TRUE, FALSE = (w.answer(200, {"is_verified": each}) for each in (True, False))
FIELDS = ("event", "reference", "purpose", "region", "reason")


@pytest.fixture(autouse=True)
def logged(caplog):
    """The messages of all events so far; none holds a number, a user or a network."""
    caplog.set_level(logging.INFO, logger="django_idenfy_phone.events")

    def logged():
        events = [r for r in caplog.records if r.name == "django_idenfy_phone.events"]
        return [(each.levelname, each.getMessage()) for each in events]

    yield logged
    secrets = (*MARKERS, NUMBER[-4:], "ona", "8.8.8.8")
    texts = " ".join(message for _level, message in logged())
    assert not [secret for secret in secrets if secret in texts]


def expected(event, row, pairs="", purpose="signup"):
    shown = f" purpose={purpose}" if purpose else ""
    return ("INFO", f"{event} reference={row.reference}{shown} region=LT{pairs}")


def sweep():
    maintenance.sweep(lambda pk: True, is_eager=True)


@pytest.mark.django_db(transaction=True)
def test_start_and_send_are_events(user, wire, logged):
    wire.will(SENT)
    row = start(user, purpose="signup", network="8.8.8.8")
    delivery.deliver(row.pk)
    assert logged() == [expected("started", row), expected("sent", row)]


@pytest.mark.django_db(transaction=True)
def test_event_has_its_fields(user, wire, caplog):
    row = start(user)
    [record] = [each for each in caplog.records if hasattr(each, "event")]
    found = [getattr(record, name) for name in FIELDS]
    assert found == ["started", row.reference, "", "LT", ""]


@pytest.mark.django_db(transaction=True)
def test_start_that_was_rolled_back_is_no_event(user, wire, logged):
    with transaction.atomic():
        start(user)
        transaction.set_rollback(True)
    assert logged() == []


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (NUMBER, "refused purpose=signup region=LT reason=cooldown"),
        ("+4915123456789", "refused purpose=signup region=DE reason="),
        ("nonsense", "refused purpose=signup reason=number_not_supported"),
    ],
)
def test_refusal_is_an_event(user, wire, make, logged, number, line):
    make("sent")
    with pytest.raises(VerificationError):
        start(user, number, purpose="signup")
    [(level, message)] = logged()
    assert (level, message[: len(line)]) == ("INFO", line)


def test_refusal_by_a_view_has_its_purpose(api, wire, settings, logged):
    settings.ROOT_URLCONF = "hosts.mounts"
    post_start(api, "/nested/sign-up/", number="nonsense")
    line = "refused purpose=signup reason=number_not_supported"
    assert logged() == [("INFO", line)]


@pytest.mark.django_db(transaction=True)
def test_refusal_inside_a_transaction_is_an_event(user, logged):
    with transaction.atomic(), pytest.raises(VerificationError):
        start(user, "nonsense")
    assert logged() == [("INFO", "refused reason=number_not_supported")]


def test_failed_send_is_an_event(make, wire, logged):
    wire.will(w.refusal(400, "BAD_VALUE"))
    row = make("queued", purpose="signup")
    delivery.deliver(row.pk)
    assert logged() == [expected("failed", row, " reason=number_refused")]


def test_claim_that_comes_too_late_is_an_event(make, wire, logged, settings):
    settings.IDENFY_PHONE_SEND_RATE = "1/h"
    soon = timezone.now() + timedelta(minutes=1)
    for tail in range(20):
        delivery.claim(make("queued", phone_number=f"{NUMBER[:-2]}{tail + 10}"))
    row = make("queued", purpose="signup", send_by=soon)
    delivery.deliver(row.pk)
    assert logged() == [expected("failed", row, " reason=too_late")]


@pytest.mark.parametrize(
    ("status", "fields", "line"),
    [
        ("queued", ["send_by"], ("failed", " reason=too_late")),
        ("sending", ["lease_until"], ("failed", " reason=unknown")),
        ("sent", ["expires_at"], ("expired", "")),
    ],
)
def test_row_that_ends_by_time_is_one_event(make, logged, status, fields, line):
    past = dict.fromkeys(fields, timezone.now() - timedelta(seconds=1))
    row = make(status, purpose="signup", **past)
    sweep()
    sweep()
    event, pairs = line
    assert logged() == [expected(event, row, pairs)]


def test_row_whose_last_check_was_lost_is_locked(make, logged):
    row = make("sent", purpose="signup", checks=3)
    sweep()
    assert logged() == [expected("locked", row)]


@pytest.mark.parametrize(
    ("checks", "events"), [(0, ["wrong_code"]), (2, ["wrong_code", "locked"])]
)
def test_wrong_code_is_an_event(make, wire, logged, checks, events):
    wire.will(FALSE)
    row = make("sent", purpose="signup", checks=checks, checks_wrong=checks)
    services.confirm_verification(row.pk, "1234", user=row.user)
    assert logged() == [expected(event, row) for event in events]


def test_proof_is_one_event(make, wire, logged):
    wire.will(TRUE)
    row = make("sent", purpose="signup")
    for _ in range(2):
        services.confirm_verification(row.pk, "1234", user=row.user)
    assert logged() == [expected("verified", row)]


@pytest.mark.django_db(transaction=True)
def test_released_number_is_an_event(user, logged):
    owner = Profile.objects.create(user=user, phone_number=NUMBER)
    ownership.release_number(owner)
    assert logged() == [("INFO", "released reason=number")]


@pytest.mark.django_db(transaction=True)
def test_ten_sweeps_at_once_log_an_end_once(make, at_once, logged):
    row = make("sent", expires_at=timezone.now() - timedelta(seconds=1))
    at_once(lambda _: PhoneVerification.objects.settle_slice(), range(10))
    assert logged() == [expected("expired", row, purpose="")]
