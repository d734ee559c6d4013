"""Every receiver runs when another fails, and phone_verified is retried."""

from contextlib import suppress
from datetime import timedelta
from functools import partial, wraps

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from django_idenfy_phone import announce, maintenance, services
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import name_of, phone_verified, send_failed
from django_idenfy_phone.testing import age
from support.steps import logged_levels, logged_messages
from support.wire import answer

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def sweep():
    maintenance.sweep(lambda pk: True)


class Broken:
    """A callable object, which has no __qualname__."""

    def __call__(self, **kwargs):
        raise LookupError("down")

    def method(self, **kwargs):
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
    """A row whose signal is due."""
    return make("verified", announce_at=timezone.now(), verified_at=timezone.now())


@pytest.mark.parametrize(
    "receiver",
    [broken, partial(broken), Broken()],
    ids=["function", "partial", "object"],
)
def test_failing_receiver_does_not_stop_other_receivers(
    verified, connect, receiver, user, caplog
):
    calls = []

    def works(verification, user, **kwargs):
        calls.append((verification.pk, user))

    connect(phone_verified, receiver)
    connect(phone_verified, works)
    announce.verified(verified)
    verified.refresh_from_db()
    assert calls == [(verified.pk, user)]
    assert (verified.is_verified, verified.announced_at) == (True, None)
    assert "LookupError: down" in caplog.text


def test_sweep_retries_until_every_receiver_succeeds(verified, connect):
    results = [LookupError("down"), LookupError("down"), None, None]

    def fails_twice(**kwargs):
        if error := results.pop(0):
            raise error

    connect(phone_verified, fails_twice)
    for _ in range(6):
        sweep()
        age(verified, timedelta(minutes=5))
    assert results == [None]
    assert verified.announced_at


def test_sweep_does_not_retry_before_the_pause_ends(verified, connect):
    calls = []

    def fails(**kwargs):
        calls.append(1)
        raise LookupError

    connect(phone_verified, fails)
    for _ in range(3):
        sweep()
    assert len(calls) == 1


def test_sweep_sends_a_signal_lost_in_a_crash_once(verified, connect):
    calls = []
    connect(phone_verified, lambda verification, **kwargs: calls.append(verification))
    sweep()
    sweep()
    assert calls == [verified]


def test_pauses_double_and_failures_after_a_day_are_critical(
    make, user, wire, connect, clock, caplog
):
    start, tries, alarms = clock.now, [], []

    def fails(**kwargs):
        tries.append((clock.now - start) // MINUTE)
        raise LookupError

    connect(phone_verified, fails)
    wire.will(answer(200, {"is_verified": True}))
    row = services.confirm_verification(make("sent").pk, "1234", user=user)
    for _ in range(13):
        clock.now = row.announce_at
        caplog.clear()
        sweep()
        if "CRITICAL" in logged_levels(caplog):
            alarms.append(tries[-1])
        row.refresh_from_db()
    assert tries[:10] == [2 ** (n + 1) - 2 for n in range(10)]
    assert tries[10:] == alarms == [1440, 2880, 4320, 5760]


def test_retries_are_daily_after_days_without_a_sweep(make, connect, clock):
    row = make("verified", announce_at=clock.now, verified_at=clock.now)
    connect(phone_verified, broken)
    for _ in range(3):
        clock.move(timedelta(days=2))
        sweep()
        row.refresh_from_db()
        assert row.announce_at == clock.now + timedelta(days=1)


def test_thousands_of_failed_attempts_raise_no_error(make, connect):
    connect(phone_verified, broken)
    long_ago = timezone.now() - timedelta(days=4000)
    row = make(
        "verified", announce_at=long_ago, verified_at=long_ago, announce_attempts=4000
    )
    announce.verified_again(row.pk)
    row.refresh_from_db()
    assert row.announce_attempts == 4001


def test_user_of_anonymous_row_is_none(make, connect):
    calls = []
    connect(phone_verified, lambda user, **kwargs: calls.append(user))
    announce.verified(make("verified", user=None, is_anonymous=True))
    assert calls == [None]


def test_failing_receiver_of_send_failed_does_not_stop_others(make, connect):
    calls = []
    connect(send_failed, Broken())
    connect(send_failed, lambda failure, **kwargs: calls.append(failure))
    announce.failed([make("failed", failure="account").pk])
    assert calls == ["account"]


def test_failing_receiver_does_not_fail_the_confirm(make, user, connect, wire):
    connect(phone_verified, broken)
    wire.will(answer(200, {"is_verified": True}))
    row = services.confirm_verification(make("sent").pk, "1234", user=user)
    assert row.is_verified


# Database errors of a receiver, inside a TestCase: its transaction must go on.


def store_user(name):
    get_user_model().objects.create(username=name)


def break_the_query(**kwargs):
    # Stored twice.
    store_user("ona")


def swallow_the_error(**kwargs):
    with suppress(IntegrityError):
        store_user("ona")


async def break_the_query_later(**kwargs):
    await sync_to_async(store_user)("ona")


def break_durably(**kwargs):
    with transaction.atomic(durable=True):
        store_user("ona")


def store_first(**kwargs):
    store_user("first")


def store_last(**kwargs):
    store_user("last")


@pytest.mark.parametrize("signal", [phone_verified, send_failed])
@pytest.mark.parametrize(
    "receiver",
    [break_the_query, swallow_the_error, break_the_query_later, break_durably],
)
def test_database_error_of_a_receiver_undoes_only_its_own_queries(
    verified, connect, signal, receiver
):
    for each in (store_first, receiver, store_last):
        connect(signal, each)
    if signal is phone_verified:
        announce.verified(verified)
    else:
        announce.failed([verified.pk])
    names = get_user_model().objects.values_list("username", flat=True)
    assert set(names) == {"ona", "first", "last"}


@pytest.mark.parametrize(
    ("receiver", "name"),
    [
        (break_the_query, "break_the_query (IntegrityError)"),
        (break_the_query_later, "break_the_query_later (IntegrityError)"),
        (Broken(), "Broken (LookupError)"),
        (Broken().method, "Broken.method (LookupError)"),
        (partial(partial(broken), extra=1), "broken (LookupError)"),
        (wraps(Broken())(lambda **kwargs: broken()), "Broken (LookupError)"),
        (lambda **kwargs: broken(), "<lambda> (LookupError)"),
    ],
)
def test_failed_receiver_is_named_in_log_and_row(
    verified, connect, receiver, name, caplog
):
    connect(phone_verified, receiver)
    announce.verified(verified)
    verified.refresh_from_db()
    assert verified.announced_at is None
    assert verified.announce_failure == f"{__name__}.{name}"
    text = f"The receiver {__name__}.{name.split()[0]} failed."
    assert ("ERROR", text) in logged_messages(caplog)


@pytest.mark.django_db(transaction=True)
def test_all_that_failed_are_named_without_what_they_said(verified, connect):
    for receiver in (broken, store_first, Broken()):
        connect(phone_verified, receiver)
    announce.verified(verified)
    verified.refresh_from_db()
    assert verified.announce_failure == (
        f"{__name__}.broken (LookupError), {__name__}.Broken (LookupError)"
    )


def test_success_leaves_no_failure(verified, connect):
    results = [LookupError("down"), None]

    def fails_once(**kwargs):
        if error := results.pop(0):
            raise error

    connect(phone_verified, fails_once)
    for expected in (f"{name_of(fails_once)} (LookupError)", ""):
        sweep()
        age(verified, timedelta(minutes=5))
        assert verified.announce_failure == expected
    assert verified.announced_at


def test_number_that_cannot_be_kept_is_named_as_the_cause(verified, settings, connect):
    calls = []
    connect(phone_verified, lambda **kwargs: calls.append(kwargs))
    settings.IDENFY_PHONE_OWNER = "accounts.Missing"
    announce.verified(verified)
    verified.refresh_from_db()
    assert verified.announce_failure == "IDENFY_PHONE_OWNER (LookupError)"
    assert (verified.announced_at, calls) == (None, [])


@pytest.mark.django_db(transaction=True)
def test_receiver_that_fails_after_a_later_try_succeeded_is_not_noted(
    verified, connect
):
    tries = []

    def fails_first_and_late(verification, **kwargs):
        tries.append(1)
        if len(tries) == 1:
            PhoneVerification.objects.update(announce_at=timezone.now())
            announce.verified_again(verification.pk)
            raise LookupError

    connect(phone_verified, fails_first_and_late)
    announce.verified(verified)
    verified.refresh_from_db()
    assert (len(tries), verified.announce_failure) == (2, "")
    assert verified.announced_at


def test_failing_receiver_is_logged_once_a_minute(verified, connect, caplog):
    def failing(**kwargs):
        raise RuntimeError

    def failing_too(**kwargs):
        raise RuntimeError

    connect(phone_verified, failing)
    connect(phone_verified, failing_too)
    for _ in range(3):
        announce.verified(verified)
    lines = [text for _level, text in logged_messages(caplog) if "receiver" in text]
    assert len(lines) == len(set(lines)) == 2


def test_receiver_may_use_a_durable_block(verified, connect):
    def receiver(**kwargs):
        with transaction.atomic(durable=True):
            store_user("first")

    connect(phone_verified, receiver)
    announce.verified(verified)
    verified.refresh_from_db()
    assert verified.announced_at


@pytest.mark.django_db(transaction=True)
def test_receiver_runs_in_no_transaction(verified, connect):
    def receiver(**kwargs):
        blocks.append(connection.in_atomic_block)

    blocks = []
    connect(phone_verified, receiver)
    announce.verified(verified)
    assert blocks == [False]


@pytest.mark.django_db(transaction=True)
def test_confirm_announces_only_what_it_verified(make, user, connect, wire):
    calls = []
    connect(phone_verified, lambda **kwargs: calls.append(kwargs))
    row = make("sent")

    def verify_first(sock):
        PhoneVerification.objects.mark_verified(row, timezone.now())
        connection.close()
        answer(200, {"is_verified": True})(sock)

    wire.will(verify_first)
    assert services.confirm_verification(row.pk, "1234", user=user).is_verified
    assert calls == []


def test_signal_lost_in_a_crash_is_sent_after_the_lease(make, connect, clock):
    calls = []
    connect(phone_verified, lambda verification, **kwargs: calls.append(verification))
    row = make("sent")
    PhoneVerification.objects.mark_verified(row, timezone.now())
    clock.move(timedelta(seconds=119))
    sweep()
    assert calls == []
    clock.move(timedelta(seconds=1))
    sweep()
    assert calls == [row]
