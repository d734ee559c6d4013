import logging
import socket
import socketserver
import threading
import time
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from django_idenfy_phone import maintenance, services, tasks
from django_idenfy_phone.exceptions import (
    CooldownActive,
    NumberNotSupported,
    ProviderUnavailable,
)
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.signals import phone_verified
from django_idenfy_phone.testing import age
from support import wire as w
from support.constants import NUMBER

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
SENT = w.answer(200, {"request_id": "3d50e1584e0946e789e0185c009aaadf"})


def warnings(caplog):
    records = [each for each in caplog.records if each.levelno >= logging.WARNING]
    return [(each.name, each.levelname) for each in records]


def start(user, number=NUMBER):
    return services.start_verification(number, user=user)


def test_a_start_stores_a_queued_row(user, wire):
    row = start(user, "+370 612 34567")
    row.refresh_from_db()
    assert (row.user, row.is_anonymous, row.status) == (user, False, "queued")
    assert (row.phone_number.as_e164, row.region) == (NUMBER, "LT")
    assert row.send_by - row.created_at == timedelta(minutes=3)


def test_a_start_without_a_user_is_anonymous(wire):
    row = start(None)
    assert (row.user_id, row.is_anonymous) == (None, True)


def test_a_bad_number_stores_nothing(user, wire):
    with pytest.raises(NumberNotSupported):
        start(user, "+370 5 2123456 789")
    assert not rows.exists()
    assert not StartLock.objects.exists()


def test_without_a_key_pair_nothing_starts(user):
    with pytest.raises(ProviderUnavailable):
        start(user)
    assert not rows.exists()


# The cooldown


def test_a_second_start_waits_a_minute(user, wire, clock):
    row = start(user)
    with pytest.raises(CooldownActive) as caught:
        start(user)
    assert caught.value.retry_after == 60
    assert rows.count() == 1
    age(row, timedelta(seconds=60))
    start(user)


def test_the_cooldown_grows_with_the_sends_of_the_last_day(user, wire, clock):
    waits = []
    for _ in range(4):
        row = start(user)
        rows.filter(pk=row.pk).update(status="expired")
        with pytest.raises(CooldownActive) as caught:
            start(user)
        waits.append(caught.value.retry_after)
        age(row, timedelta(minutes=10))
    assert waits == [60, 120, 300, 300]


def test_yesterdays_sends_do_not_slow_todays(user, wire):
    for _ in range(3):
        row = start(user)
        rows.filter(pk=row.pk).update(status="expired")
        age(row, timedelta(days=1))
    start(user)
    with pytest.raises(CooldownActive) as caught:
        start(user)
    assert caught.value.retry_after <= 60


def test_another_number_need_not_wait(user, wire):
    start(user)
    start(user, "+37061234568")
    assert rows.count() == 2


@pytest.mark.parametrize(
    "failure", ["account", "unreachable", "rate_limited", "too_late"]
)
def test_a_start_that_sent_nothing_costs_ten_seconds(user, make, wire, clock, failure):
    row = make("failed", failure=failure)
    with pytest.raises(CooldownActive) as caught:
        start(user)
    assert caught.value.retry_after == 10
    age(row, timedelta(seconds=10))
    start(user)


@pytest.mark.parametrize("failure", ["unknown", "number_refused"])
def test_a_start_that_may_have_sent_costs_a_minute(user, make, wire, clock, failure):
    make("failed", failure=failure)
    with pytest.raises(CooldownActive) as caught:
        start(user)
    assert caught.value.retry_after == 60


@pytest.mark.parametrize(
    ("status", "end"),
    [("queued", "too_late"), ("sending", "unknown"), ("sent", "expired")],
)
def test_a_late_row_is_settled_by_the_next_start(user, make, wire, status, end):
    row = make(status)
    age(row, timedelta(minutes=11))
    start(user)
    row.refresh_from_db()
    assert (row.failure or row.status) == end


def test_a_lock_holds_no_number_in_clear(user, wire):
    start(user)
    keys = [lock.key for lock in StartLock.objects.all()]
    assert [len(key) for key in keys] == [64, 64]
    assert NUMBER[1:] not in "".join(keys)


@pytest.mark.django_db(transaction=True)
def test_50_starts_for_one_number_are_one_row(user, wire, at_once):
    def attempt(_):
        try:
            return start(user).status
        except CooldownActive:
            return "cooldown"

    assert Counter(at_once(attempt, range(50))) == {"queued": 1, "cooldown": 49}
    assert rows.count() == 1


# The hint


class Broker:
    """The test process's own Celery app, pointed to a broker for one test."""

    def __init__(self, app):
        self.app = app

    def use(self, url):
        self.app.conf.broker_url = url
        self.app.conf.broker_write_url = url
        tasks._drop_links()


@pytest.fixture
def broker():
    app = tasks.send_code.app
    before = app.conf.broker_url, app.conf.broker_write_url
    yield Broker(app)
    app.conf.broker_url, app.conf.broker_write_url = before
    tasks._drop_links()


@pytest.fixture
def queue(broker):
    """Messages published to a fresh in-memory queue."""
    broker.use("memory://")
    with broker.app.connection_for_read() as connection:
        queue = connection.SimpleQueue(broker.app.conf.task_default_queue)
        queue.clear()
        yield queue
        queue.clear()
        queue.close()


@pytest.mark.django_db(transaction=True)
def test_the_message_holds_the_id_and_nothing_else(user, wire, queue):
    row = start(user)
    message = queue.get(timeout=2)
    assert message.payload[:2] == [[str(row.pk)], {}]
    assert "61234567" not in str(message.body) + str(message.headers)


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_start_hints_nobody(user, wire, queue):
    with transaction.atomic():
        start(user)
        transaction.set_rollback(True)
    assert queue.qsize() == 0
    assert not rows.exists()


@pytest.fixture
def unreachable(broker):
    """A broker that hangs up on everybody, and counts."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            server.tries += 1

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.tries = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        broker.use(f"redis://127.0.0.1:{server.server_address[1]}/0")
        yield server
        server.shutdown()


@pytest.fixture
def silent_port():
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_a_dead_broker_costs_the_user_nothing(user, wire, broker, url, caplog):
    broker.use(url)
    started = time.monotonic()
    row = start(user)
    assert time.monotonic() - started < 1
    assert row.status == "queued"
    assert warnings(caplog) == [("django_idenfy_phone.tasks", "WARNING")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_silent_broker_costs_the_user_half_a_second(
    user, wire, broker, silent_port, scheme
):
    broker.use(f"{scheme}://127.0.0.1:{silent_port}/")
    started = time.monotonic()
    start(user)
    first = time.monotonic() - started
    start(user, "+37061234568")
    assert first < 1
    assert time.monotonic() - started - first < 0.4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_there", [True, False])
def test_an_embedded_broker_holds_nobody_up(user, wire, broker, tmp_path, is_there):
    folder = tmp_path / "messages"
    if is_there:
        folder.mkdir()
    before = broker.app.conf.broker_transport_options
    broker.app.conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": tmp_path / "control",
    }
    try:
        broker.use("filesystem://")
        started = time.monotonic()
        row = start(user)
        assert time.monotonic() - started < 1
    finally:
        broker.app.conf.broker_transport_options = before
    assert row.status == "queued"
    assert len(list(folder.glob("*.msg"))) == is_there


@pytest.mark.django_db(transaction=True)
def test_a_row_that_nobody_was_told_of_is_hinted_by_the_sweep(user, wire, queue):
    row = start(user)
    queue.clear()
    tasks.sweep()
    assert queue.get(timeout=2).payload[0] == [str(row.pk)]


@pytest.mark.django_db(transaction=True)
def test_a_sweep_hints_until_a_publish_fails(make, broker, unreachable, caplog):
    for _ in range(3):
        make("queued")
    tasks.sweep()
    assert warnings(caplog) == [("django_idenfy_phone.tasks", "WARNING")]
    assert unreachable.tries == 1


@pytest.mark.django_db(transaction=True)
def test_without_a_broker_the_sms_leaves_after_the_commit(user, wire, broker):
    def answer(sock):
        assert rows.count() == 1
        connection.close()
        SENT(sock)

    wire.will(answer)
    broker.app.conf.task_always_eager = True
    try:
        row = start(user)
    finally:
        broker.app.conf.task_always_eager = False
    row.refresh_from_db()
    assert row.status == "sent"


@pytest.mark.django_db(transaction=True)
def test_a_slow_send_without_a_broker_delays_no_other(user, wire, broker):
    wire.will(lambda sock: (time.sleep(0.6), w.answer(500)(sock)))
    broker.app.conf.task_always_eager = True
    try:
        started = [start(user, NUMBER[:-1] + digit) for digit in "12"]
    finally:
        broker.app.conf.task_always_eager = False
    assert (len(started), len(wire.requests)) == (2, 2)


# The tasks


def test_a_task_sends(user, wire):
    wire.will(SENT)
    row = start(user)
    tasks.send_code(str(row.pk))
    row.refresh_from_db()
    assert row.status == "sent"


@pytest.mark.parametrize("arguments", [[], ["garbage"], [None], [7], [{}]])
def test_a_message_without_an_id_ends_quietly(wire, arguments, caplog):
    tasks.send_code(*arguments)
    assert wire.requests == []
    assert warnings(caplog) == [("django_idenfy_phone.tasks", "WARNING")]


def test_a_message_of_another_release_ends_quietly(user, wire, caplog):
    tasks.send_code(verification_id="x", attempt=2)
    assert warnings(caplog) == [("django_idenfy_phone.tasks", "WARNING")]


def test_more_arguments_than_the_id_are_passed_over(make, wire):
    wire.will(SENT)
    tasks.send_code(str(make("queued").pk), "more", attempt=2)
    assert len(wire.requests) == 1


def test_the_oldest_due_rows_come_first(make, wire):
    newer, older = make("queued"), make("queued", slot_held=True)
    age(older, timedelta(minutes=1))
    # As a start leaves it.
    rows.filter(pk=newer.pk).update(
        next_send_at=F("created_at") - timedelta(minutes=10)
    )
    make("queued", next_send_at=newer.send_by)
    make("sending")
    assert maintenance.due() == [older.pk, newer.pk]


@pytest.mark.django_db(transaction=True)
def test_a_sweep_waits_out_a_pause_of_publishing(make, queue):
    for _ in range(2):
        make("queued")
    tasks._paused_until = time.monotonic() + 0.3
    tasks.sweep()
    assert queue.qsize() == 2
    assert time.monotonic() > tasks._paused_until


@pytest.mark.django_db(transaction=True)
def test_no_code_waits_for_a_slow_receiver(make, queue, monkeypatch):
    hinted_before = []

    def slow(**kwargs):
        hinted_before.append(queue.qsize())

    monkeypatch.setattr(maintenance, "PATIENCE", -1)
    now = timezone.now()
    for _ in range(2):
        make("queued")
        make("verified", verified_at=now, announce_at=now)
    phone_verified.connect(slow)
    # Out of time, a sweep does one of each.
    tasks.sweep()
    assert hinted_before == [queue.qsize()] == [1]
    monkeypatch.setattr(maintenance, "PATIENCE", 20)
    queue.clear()
    tasks.sweep()
    phone_verified.disconnect(slow)
    assert hinted_before == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_one_row_delivered_20_times_at_once_is_sent_once(make, wire, at_once):
    wire.will(SENT)
    row = make("queued")
    at_once(lambda _: tasks.send_code(str(row.pk)), range(20))
    row.refresh_from_db()
    assert (row.status, len(wire.requests)) == ("sent", 1)


@pytest.mark.django_db(transaction=True)
def test_ten_sweeps_at_once_disturb_nothing(make, wire, at_once):
    wire.will(SENT)
    row = make("queued")

    def deliver(pk):
        tasks.send_code(str(pk))
        return True

    at_once(lambda _: maintenance.sweep(deliver), range(10))
    row.refresh_from_db()
    assert (row.status, len(wire.requests)) == ("sent", 1)
