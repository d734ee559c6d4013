"""What calls for a person is logged once a minute a cause, however often it happens."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_idenfy_phone import delivery, services
from django_idenfy_phone.exceptions import LimitReached, VerificationError
from django_idenfy_phone.management.commands import idenfy_phone_sweep
from support import wire as w
from support.constants import NUMBER
from support.steps import (
    logged_levels,
    logged_messages,
    start,
    start_and_expire,
)

pytestmark = pytest.mark.django_db
REACHED = {
    "block": "The limit of the block +370**23**** is reached: 1 in 1:00:00",
    "site": "The limit of the site is reached: 1 in 1:00:00",
}
REQUEST_ID = "r" * 32


@pytest.fixture
def attack(settings, wire, user):
    """Start for numbers that have reached the limit of this kind."""
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)

    def attack(kind, times=3):
        settings.IDENFY_PHONE_SEND_LIMITS = {kind: ("1/h",), "user": ()}
        for tail in range(10, 10 + times):
            refused_start(user, f"{NUMBER[:-2]}{tail}")

    start_and_expire(user)
    return attack


def refused_start(user, number):
    with pytest.raises(LimitReached):
        start(user, number)


def logged_limits(caplog):
    """As ``logged_messages``, without the time at which a limit ends."""
    texts = logged_messages(caplog)
    return [(level, text.partition(", until ")[0]) for level, text in texts]


@pytest.mark.parametrize("kind", ["block", "site"])
def test_attacked_limit_is_one_alarm(attack, caplog, kind):
    attack(kind, times=50)
    assert logged_limits(caplog) == [("CRITICAL", REACHED[kind])]


def test_attacked_blocks_are_one_alarm(settings, attack, user, caplog):
    attack("block")
    for block in range(5):
        number = f"+3706{block}000000"
        start(user, number)
        refused_start(user, number)
    assert logged_levels(caplog) == ["CRITICAL"]


def test_each_kind_of_limit_is_a_cause(attack, caplog):
    for kind in ("block", "site", "block"):
        attack(kind)
    texts = [REACHED["block"], REACHED["site"]]
    assert logged_limits(caplog) == [("CRITICAL", text) for text in texts]


@pytest.mark.parametrize(
    ("seconds", "alarms"), [(0, 1), (59, 1), (60, 2), (-59, 1), (-60, 2)]
)
def test_alarm_is_repeated_after_a_minute(attack, clock, caplog, seconds, alarms):
    clock.move(timedelta(minutes=2))
    attack("site")
    clock.move(timedelta(seconds=seconds))
    attack("site")
    assert logged_levels(caplog) == ["CRITICAL"] * alarms


@pytest.mark.django_db(transaction=True)
def test_50_threads_raise_one_alarm(attack, settings, user, at_once, caplog):
    settings.IDENFY_PHONE_SEND_LIMITS = {"site": ("1/h",), "user": ()}
    at_once(lambda tail: refused_start(user, f"{NUMBER[:-2]}{tail}"), range(10, 60))
    assert logged_levels(caplog) == ["CRITICAL"]


def test_repeated_request_ids_are_one_alarm(make, wire, caplog):
    make("sent", request_id=REQUEST_ID)
    wire.will(w.answer(200, {"request_id": REQUEST_ID}))
    for _ in range(5):
        delivery.deliver(make("queued").pk)
    assert logged_levels(caplog).count("CRITICAL") == 1


def confirm_in_vain(row):
    with pytest.raises(VerificationError) as caught:
        services.confirm_verification(row.pk, "1234", user=row.user)
    return caught.value.code


@pytest.mark.parametrize(
    "act", [w.answer(500), w.hang_up, w.refusal(429, "TOO_MANY_REQUESTS")]
)
def test_check_that_fails_is_no_error(make, wire, caplog, act):
    wire.will(act)
    code = confirm_in_vain(make())
    assert code in ("check_unknown", "provider_unavailable")
    assert logged_levels(caplog) == ["WARNING"]


def test_account_refused_at_checks_is_one_alarm(make, wire, caplog):
    wire.will(w.answer(401))
    for _ in range(3):
        confirm_in_vain(make())
    assert sorted(logged_levels(caplog)) == ["CRITICAL", *["WARNING"] * 3]


@pytest.mark.django_db(transaction=True)
def test_sweeps_that_fail_are_one_alarm(make, caplog):
    def fail(pk):
        raise LookupError

    make("queued", next_send_at=timezone.now() - timedelta(seconds=1))
    for _ in range(5):
        idenfy_phone_sweep.sweep_or_log(fail, lambda: None)
    text = "A sweep failed (LookupError); the loop continues."
    assert logged_messages(caplog) == [("ERROR", text)]
