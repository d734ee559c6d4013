"""Purge and erasure, while starts, other purges and lost connections happen."""

from collections import Counter
from contextlib import suppress
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from django_idenfy_phone import limits, maintenance, retention
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification, StartLock
from support.constants import NUMBER
from support.databases import lose_connection
from support.steps import start

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("idenfy_sandbox"),
]
rows = PhoneVerification.objects


@pytest.fixture
def users(django_user_model, settings):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)
    return django_user_model.objects.bulk_create(
        django_user_model(username=f"user{n}") for n in range(50)
    )


@pytest.fixture
def make_old_rows(make, user, monkeypatch):
    """Store ended rows, 91 days old, that are deleted two at a time."""

    def make_old_rows(count):
        old = timezone.now() - timedelta(days=91)
        for _ in range(count):
            make("expired", created_at=old)

    monkeypatch.setattr(retention, "BATCH", 2)
    return make_old_rows


def status_or_code(user):
    try:
        return start(user).status
    except VerificationError as error:
        return error.code


def make_locks_old():
    """As if nobody had started for a long time: one by one, as starts wait for each."""
    old = timezone.now() - timedelta(days=31)
    for key in StartLock.objects.order_by("key").values_list("key", flat=True):
        StartLock.objects.filter(key=key).update(locked_at=old)


def purge_old_locks():
    make_locks_old()
    maintenance.purge()


def forget_locks():
    limits.forget("number", NUMBER)
    limits.forget("block", NUMBER[:-4])


@pytest.mark.parametrize("delete_locks", [purge_old_locks, forget_locks])
def test_starts_cannot_exceed_a_limit_while_locks_are_deleted(
    users, at_once, delete_locks
):
    def delete_or_start(n):
        if n % 5:
            return status_or_code(users[n])
        for _ in range(5):
            delete_locks()
        return "deleted"

    results = Counter(at_once(delete_or_start, range(50)))
    assert results == {"deleted": 10, "queued": 3, "limit_reached": 37}
    assert rows.count() == 3


def test_several_purges_at_once_delete_each_row_once(make_old_rows, at_once):
    make_old_rows(20)
    done = at_once(lambda _: maintenance.purge().rows, range(4))
    assert (sum(done), rows.count()) == (20, 0)


def test_purge_can_be_run_again_after_a_lost_connection(make_old_rows):
    def lose(execute, sql, *arguments):
        result = execute(sql, *arguments)
        if "DELETE FROM" in sql and not lost:
            lost.append(sql)
            lose_connection()
        return result

    lost = []
    make_old_rows(5)
    with connection.execute_wrapper(lose), suppress(Exception):
        maintenance.purge()
    connection.close()
    maintenance.purge()
    assert (len(lost), rows.count()) == (1, 0)


def test_rows_that_start_during_an_erasure_are_whole(users, at_once, settings):
    """Each of them is erased, or is as it was stored."""
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": [], "block": []}

    def erase_or_start(n):
        if n % 5:
            return status_or_code(users[n])
        maintenance.erase(phone_number=NUMBER)
        return "erased"

    results = Counter(at_once(erase_or_start, range(50)))
    assert results == {"erased": 10, "queued": 40}
    for row in rows.all():
        assert (row.user_id is None) == (row.erased_at is not None)
