import logging
from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from django_idenfy_phone import announce, maintenance, services
from django_idenfy_phone.signals import phone_verified, send_failed
from django_idenfy_phone.testing import age
from support.wire import answer

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def sweep():
    maintenance.sweep(lambda pk: True)


class Broken:
    """A callable object: it has no __qualname__."""

    def __call__(self, **kwargs):
        raise LookupError("down")


def broken(**kwargs):
    raise LookupError("down")


@pytest.fixture
def connect():
    """Connect receivers for one test."""
    connected = []

    def connect(signal, receiver):
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


@pytest.fixture
def verified(make):
    return make("verified", announce_at=timezone.now(), verified_at=timezone.now())


@pytest.mark.parametrize(
    "receiver",
    [broken, partial(broken), Broken()],
    ids=["function", "partial", "object"],
)
def test_a_failing_receiver_keeps_nobody_from_hearing(
    verified, connect, receiver, user, caplog
):
    calls = []

    def works(verification, user, **kwargs):
        calls.append((verification.pk, user))

    connect(phone_verified, receiver)
    connect(phone_verified, works)
    announce.verified(verified.pk)
    verified.refresh_from_db()
    assert calls == [(verified.pk, user)]
    assert (verified.is_verified, verified.announced_at) == (True, None)
    assert "LookupError: down" in caplog.text


def test_the_sweep_tries_until_every_receiver_works(verified, connect):
    answers = [LookupError("down"), LookupError("down"), None, None]

    def unsteady(**kwargs):
        if error := answers.pop(0):
            raise error

    connect(phone_verified, unsteady)
    for _ in range(6):
        sweep()
        age(verified, timedelta(minutes=5))
    assert answers == [None]
    assert verified.announced_at


def test_the_sweep_does_not_hurry(verified, connect):
    calls = []

    def counts(**kwargs):
        calls.append(1)
        raise LookupError

    connect(phone_verified, counts)
    for _ in range(3):
        sweep()
    assert len(calls) == 1


def test_a_crash_before_the_signal_is_made_good_by_the_sweep(verified, connect):
    calls = []
    connect(phone_verified, lambda verification, **kwargs: calls.append(verification))
    sweep()
    sweep()
    assert calls == [verified]


def test_the_pauses_grow_and_a_day_of_failing_calls_for_a_person(
    make, connect, clock, caplog
):
    began = clock.now
    row = make("verified", announce_at=began, verified_at=began)
    tries, alarms = [], []

    def fails(**kwargs):
        tries.append((clock.now - began) // MINUTE)
        raise LookupError

    connect(phone_verified, fails)
    for _ in range(15):
        caplog.clear()
        sweep()
        alarms += [tries[-1]] * ("CRITICAL" in levels(caplog))
        row.refresh_from_db()
        clock.now = row.announce_at
    assert tries[:11] == [2**n - 1 for n in range(11)]
    assert tries[11:] == alarms == [1440, 2880, 4320, 5760]


def test_after_a_day_without_a_sweep_there_is_one_alarm_a_day(make, connect, clock):
    began = clock.now
    row = make("verified", announce_at=began, verified_at=began)
    connect(phone_verified, broken)
    for _ in range(3):
        clock.now += timedelta(days=2)
        sweep()
        row.refresh_from_db()
        assert row.announce_at == clock.now + timedelta(days=1)


def levels(caplog):
    return [each.levelname for each in caplog.records if each.levelno > logging.INFO]


def test_years_of_failing_are_no_error(make, connect):
    connect(phone_verified, broken)
    long_ago = timezone.now() - timedelta(days=4000)
    row = make(
        "verified", announce_at=long_ago, verified_at=long_ago, announce_attempts=4000
    )
    announce.verified(row.pk)
    row.refresh_from_db()
    assert row.announce_attempts == 4001


def test_the_user_of_an_anonymous_row_is_none(make, connect):
    calls = []
    connect(phone_verified, lambda user, **kwargs: calls.append(user))
    row = make("verified", user=None, is_anonymous=True, announce_at=timezone.now())
    announce.verified(row.pk)
    assert calls == [None]


def test_a_failing_receiver_of_send_failed_disturbs_nobody(make, connect):
    calls = []
    connect(send_failed, Broken())
    connect(send_failed, lambda failure, **kwargs: calls.append(failure))
    announce.failed([make("failed", failure="account").pk])
    assert calls == ["account"]


def test_a_failing_receiver_is_no_error_for_the_user(make, user, connect, wire):
    connect(phone_verified, broken)
    wire.will(answer(200, {"is_verified": True}))
    row = services.confirm_verification(make("sent").pk, "1234", user=user)
    assert row.is_verified
