"""A backlog of late rows delays no send, and ends within one budget of the sweep."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_idenfy_phone import maintenance
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import send_failed

pytestmark = pytest.mark.django_db(transaction=True)
rows = PhoneVerification.objects
MINUTE = timedelta(minutes=1)


def store_late_rows(count):
    long_ago = timezone.now() - 10 * MINUTE
    times = {"created_at": long_ago, "next_send_at": long_ago, "send_by": long_ago}
    rows.bulk_create(
        (
            PhoneVerification(phone_number=f"+370612{n:05}", region="LT", **times)
            for n in range(count)
        ),
        batch_size=1_000,
    )


def test_sweep_dispatches_before_it_settles(make):
    def dispatch(pk):
        late_at_dispatch.append(rows.filter(status="queued").count())
        return True

    late_at_dispatch = []
    store_late_rows(5)
    make("queued")
    maintenance.sweep(dispatch)
    assert late_at_dispatch == [6]
    assert rows.filter(failure="too_late").count() == 5


def test_sweep_without_time_ends_one_slice():
    store_late_rows(1_200)
    maintenance.sweep(lambda pk: True, budget=timedelta(seconds=-1))
    assert rows.filter(status="queued").count() == 700


def test_each_slice_commits_at_most_500_rows():
    store_late_rows(1_200)
    ended = [rows.settle_slice()[0] for _ in range(4)]
    assert ended == [500, 500, 200, 0]


def test_failed_signals_stop_at_the_end_of_the_budget():
    def receiver(**kwargs):
        received.append(kwargs)
        threading.Event().wait(0.2)

    received = []
    store_late_rows(100)
    send_failed.connect(receiver)
    maintenance.sweep(lambda pk: True, budget=timedelta(seconds=1))
    send_failed.disconnect(receiver)
    assert 1 <= len(received) < 10
    assert rows.filter(failure="too_late").count() == 100


def test_locked_rows_are_left_for_the_next_slice(make, at_once):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite locks the whole database")
    late = timezone.now() - MINUTE
    locked, free = make("queued", send_by=late), make("queued", send_by=late)
    with transaction.atomic():
        rows.select_for_update().get(pk=locked.pk)
        results = at_once(lambda _: rows.settle_slice(), [None])
    assert results == [(1, [free.pk])]
    assert rows.settle_slice() == (1, [locked.pk])
