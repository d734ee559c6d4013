"""A start stores one queued row, or raises and stores nothing."""

from collections import Counter
from datetime import timedelta

import pytest
from django.db.models.signals import post_save, pre_save

from django_idenfy_phone.exceptions import (
    CooldownActive,
    NumberNotSupported,
    ProviderUnavailable,
)
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.testing import age
from support.constants import NUMBER
from support.steps import UNSENT_FAILURES, outcome, refusal_of, start, start_and_expire

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def test_start_stores_a_queued_row(user, wire):
    row = start(user, "+370 612 34567")
    row.refresh_from_db()
    assert (row.user, row.is_anonymous, row.status) == (user, False, "queued")
    assert (row.phone_number.as_e164, row.region) == (NUMBER, "LT")
    assert row.send_by - row.created_at == 3 * MINUTE


def test_new_row_is_as_it_is_stored(user, wire):
    row = start(user, purpose="sms-login", network="192.0.2.1")
    assert not row._state.adding
    stored = rows.values().get(pk=row.pk)
    assert {name: getattr(row, name) for name in stored} == stored


def test_receivers_of_save_hear_of_a_new_row(user, wire):
    heard = []

    def receiver(signal, instance, using, raw, update_fields, created=None, **kwargs):
        assert (using, raw, update_fields) == ("default", False, None)
        is_stored = rows.filter(pk=instance.pk).exists()
        heard.append((signal is post_save, created, is_stored))

    for signal in (pre_save, post_save):
        signal.connect(receiver, PhoneVerification)
    try:
        start(user)
    finally:
        for signal in (pre_save, post_save):
            signal.disconnect(receiver, PhoneVerification)
    assert heard == [(False, None, False), (True, True, True)]


def test_start_without_a_user_is_anonymous(wire):
    row = start(None)
    assert (row.user_id, row.is_anonymous) == (None, True)


def test_invalid_number_stores_nothing(user, wire):
    with pytest.raises(NumberNotSupported):
        start(user, "+370 5 2123456 789")
    assert not rows.exists()
    assert not StartLock.objects.exists()


def test_start_without_a_key_pair_is_refused(user):
    with pytest.raises(ProviderUnavailable):
        start(user)
    assert not rows.exists()


def test_refused_start_first_settles_the_late_rows_of_its_number(
    settings, user, make, wire, clock
):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/h",)}
    row = make("queued")
    clock.move(5 * MINUTE)
    start(user)
    assert outcome(row) == "too_late"


def test_start_that_nothing_refuses_settles_no_row(user, make, wire, clock):
    row = make("queued")
    clock.move(5 * MINUTE)
    start(user)
    assert outcome(row) == "queued"


def test_lock_holds_no_number_in_clear(user, wire):
    start(user)
    keys = [lock.key for lock in StartLock.objects.all()]
    assert [len(key) for key in keys] == [64, 64, 64]
    assert NUMBER[1:] not in "".join(keys)


@pytest.mark.django_db(transaction=True)
def test_50_parallel_starts_for_one_number_store_one_row(user, wire, at_once):
    def attempt(_):
        try:
            return start(user).status
        except CooldownActive:
            return "cooldown"

    assert Counter(at_once(attempt, range(50))) == {"queued": 1, "cooldown": 49}
    assert rows.count() == 1


# The cooldown


def test_second_start_waits_a_minute(user, wire, clock):
    row = start(user)
    assert refusal_of(user) == ("cooldown", MINUTE)
    assert rows.count() == 1
    age(row, MINUTE)
    start(user)


def test_cooldown_grows_with_the_sends_of_the_last_day(user, wire, clock):
    waits = []
    for _ in range(4):
        row = start_and_expire(user)
        waits.append(refusal_of(user))
        age(row, 10 * MINUTE)
    assert waits == [("cooldown", n * SECOND) for n in (60, 120, 300, 300)]


def test_cooldown_ignores_sends_older_than_a_day(user, wire):
    for _ in range(3):
        age(start_and_expire(user), timedelta(days=1))
    start(user)
    code, wait = refusal_of(user)
    assert (code, wait <= MINUTE) == ("cooldown", True)


def test_another_number_has_its_own_cooldown(user, wire):
    start(user)
    start(user, "+37061234568")
    assert rows.count() == 2


@pytest.mark.parametrize("failure", UNSENT_FAILURES)
def test_unsent_row_has_a_cooldown_of_ten_seconds(user, make, wire, clock, failure):
    row = make("failed", failure=failure)
    assert refusal_of(user) == ("cooldown", 10 * SECOND)
    age(row, 10 * SECOND)
    start(user)


@pytest.mark.parametrize("failure", ["unknown", "number_refused"])
def test_row_that_may_have_sent_has_a_full_cooldown(user, make, wire, clock, failure):
    make("failed", failure=failure)
    assert refusal_of(user) == ("cooldown", MINUTE)
