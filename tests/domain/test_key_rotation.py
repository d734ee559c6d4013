"""While SECRET_KEY is rotated, rows of both releases are found and excluded."""

from datetime import timedelta

import pytest
from django.test import override_settings
from django.utils import timezone

from django_idenfy_phone import gate, idempotency, services
from django_idenfy_phone.models import PhoneVerification, StartLock
from support.constants import NUMBER
from support.steps import refusal_of, start, start_and_expire

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("account")]
KEY = "3f1c9a4e-key-of-a-form"
MINUTE = timedelta(minutes=1)

old_release = override_settings(SECRET_KEY="old", SECRET_KEY_FALLBACKS=[])
new_release = override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"])


def test_idempotency_key_of_the_old_release_is_found(user):
    with old_release:
        row = start(user, idempotency_key=KEY)
    with new_release:
        assert start(user, idempotency_key=KEY) == row


def test_idempotency_key_of_the_old_release_is_free_after_a_day(user, clock):
    with old_release:
        start_and_expire(user, idempotency_key=KEY)
    clock.move(timedelta(days=1))
    with new_release:
        row = start(user, idempotency_key=KEY)
    assert PhoneVerification.objects.exclude(idempotency_key=None).get() == row


@pytest.mark.parametrize(
    ("clearing", "starting"), [(old_release, new_release), (new_release, old_release)]
)
def test_clearing_of_one_release_counts_in_the_other(user, clock, clearing, starting):
    with starting:
        start_and_expire(user)
        assert refusal_of(user) == ("cooldown", MINUTE)
    with clearing:
        services.unblock(phone_number=NUMBER)
    clock.move(timedelta(seconds=1))
    with starting:
        start(user)


def test_latest_of_two_clearings_counts(user, clock):
    with new_release:
        services.unblock(phone_number=NUMBER)
        clock.move(MINUTE)
        start_and_expire(user)
    with old_release:
        services.unblock(phone_number=NUMBER)
    clock.move(timedelta(seconds=1))
    with new_release:
        start(user)


def test_both_releases_lock_the_same_rows(user):
    with old_release:
        start_and_expire(user)
    old_keys = set(StartLock.objects.values_list("key", flat=True))
    with new_release:
        start(user, "+37061234568")
    new_keys = set(StartLock.objects.values_list("key", flat=True))
    locked = StartLock.objects.order_by("-locked_at").values_list("key", flat=True)
    # User and block are the same; the number is another one.
    assert len(old_keys & set(locked[:6])) == 2
    assert len(new_keys - old_keys) == 4


def test_key_of_the_last_day_is_never_released(user, clock):
    row = start(user, idempotency_key=KEY)
    clock.move(timedelta(days=1) - timedelta(seconds=1))
    idempotency.release([row.idempotency_key])
    assert PhoneVerification.objects.exclude(idempotency_key=None).get() == row


def test_refused_account_counts_once_in_both_releases(make):
    for number in ("+37061234567", "+37061234568"):
        row = make("sending", phone_number=number)
        for release in (old_release, new_release):
            with release:
                gate.note_account_fault(row, timezone.now(), is_key_refused=False)
    assert len(gate.current().account_fault_sources.split()) == 2
    assert gate.current().account_paused_until is None
