"""Refused starts are counted by reason and region, and the caller learns nothing."""

import random
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import Sum

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import NumberNotSupported, VerificationError
from django_idenfy_phone.records import Tally
from django_idenfy_phone.tallies import hour_of, note_refusal
from support.constants import NUMBER
from support.steps import logged_messages, post_start, start

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("wire")]
GERMAN = "+4915123456789"
FIXED_LINE = "+37052123456"
HOUR = timedelta(hours=1)


def refusals():
    """How many refusals of each reason and region are counted."""
    groups = Tally.objects.filter(name="refused").values_list("reason", "region")
    counted = groups.annotate(sum=Sum("count")).order_by("reason", "region")
    return {(reason, region): count for reason, region, count in counted}


def refuse(user, number=NUMBER):
    with pytest.raises(VerificationError):
        start(user, number)


def test_50_german_starts_under_lithuania_alone_show_as_50(api, settings):
    settings.IDENFY_PHONE_REGIONS = ["LT"]
    answers = {post_start(api, number=GERMAN).content for _ in range(50)}
    assert refusals() == {("number_not_supported", "DE"): 50}
    assert answers == {post_start(api, number="nonsense").content}


@pytest.mark.parametrize(
    ("number", "region"),
    [
        ("nonsense", ""),
        (7, ""),
        ("+999123", ""),
        (GERMAN, "DE"),
        ("+37052123456", "LT"),
    ],
)
def test_refused_number_is_counted_once_with_its_region(api, number, region):
    assert post_start(api, number=number).status_code == 400
    assert refusals() == {("number_not_supported", region): 1}


def test_number_refused_by_a_service_is_counted(user, rf):
    refuse(user, GERMAN)
    with pytest.raises(NumberNotSupported):
        services.start_for_request(rf.post("/"), GERMAN)
    assert refusals() == {("number_not_supported", "DE"): 2}


def test_cooldown_is_counted(user):
    start(user)
    refuse(user)
    assert refusals() == {("cooldown", "LT"): 1}


@pytest.mark.parametrize("kind", ["number", "user", "network", "block", "site"])
def test_each_kind_of_limit_is_counted(user, settings, kind):
    settings.IDENFY_PHONE_SEND_LIMITS = {kind: ("1/h",)}
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)
    row = start(user, network="8.8.8.8")
    type(row).objects.update(status="expired")
    with pytest.raises(VerificationError):
        start(user, network="8.8.8.8")
    assert refusals() == {(kind, "LT"): 1}


def test_start_without_an_api_key_is_counted(api, settings):
    settings.IDENFY_PHONE_API_KEY = ""
    assert post_start(api).status_code == 503
    assert refusals() == {("unavailable", "LT"): 1}


@pytest.mark.parametrize("error", [LookupError, NumberNotSupported])
def test_start_that_the_guard_refuses_is_counted(rf, settings, error):
    def guard(request, number):
        raise error

    settings.IDENFY_PHONE_START_GUARD = guard
    with pytest.raises(error):
        services.start_for_request(rf.post("/"), NUMBER)
    assert refusals() == {("guard", "LT"): 1}


def test_accepted_start_is_no_refusal(api):
    assert post_start(api).status_code == 202
    assert refusals() == {}


@pytest.mark.django_db(transaction=True)
def test_refusal_inside_a_transaction_is_not_counted(user):
    with transaction.atomic():
        refuse(user, GERMAN)
    assert refusals() == {}


def test_refusals_are_counted_in_their_hour(user, clock):
    clock.now = hour_of(clock.now) + HOUR - timedelta(microseconds=1)
    refuse(user, GERMAN)
    clock.move(timedelta(microseconds=1))
    refuse(user, GERMAN)
    hours = Tally.objects.order_by("hour").values_list("hour", flat=True)
    assert list(hours) == [clock.now - HOUR, clock.now]


def test_refusals_are_spread_over_16_rows(monkeypatch):
    shards = iter([*range(16), *range(16)])
    monkeypatch.setattr(random, "randrange", lambda n: next(shards) % n)
    for _ in range(32):
        note_refusal("cooldown", "LT", "")
    rows = Tally.objects.order_by("shard").values_list("shard", "count")
    assert list(rows) == [(shard, 2) for shard in range(16)]


@pytest.mark.django_db(transaction=True)
def test_50_refusals_at_once_are_counted(at_once):
    at_once(lambda _: note_refusal("cooldown", "LT", ""), range(50))
    assert refusals() == {("cooldown", "LT"): 50}


def test_failure_to_count_changes_no_answer(api, caplog):
    def fail(execute, sql, *arguments):
        if "tally" in sql:
            raise OperationalError("+37061234567")
        return execute(sql, *arguments)

    before = post_start(api, number=GERMAN).content
    with connection.execute_wrapper(fail):
        assert post_start(api, number=GERMAN).content == before
    text = "A refused start was not counted (OperationalError)."
    assert ("WARNING", text) in logged_messages(caplog)
