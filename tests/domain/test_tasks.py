"""A message only notifies a worker: a lost or repeated one changes nothing."""

import logging
import socket
import socketserver
import threading
import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from django_idenfy_phone import maintenance, tasks
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_verified
from django_idenfy_phone.testing import age
from support import wire as w
from support.brokers import wait_until
from support.constants import NUMBER
from support.steps import dispatched_by_sweep, outcome, receivers_ended, start

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
SENT = w.answer(200, {"request_id": "3d50e1584e0946e789e0185c009aaadf"})
MINUTE = timedelta(minutes=1)


def warnings(caplog):
    """Logger and level of all log records from WARNING on, oldest first."""
    records = [each for each in caplog.records if each.levelno >= logging.WARNING]
    return [(each.name, each.levelname) for each in records]


@pytest.fixture
def queue(celery_app):
    """Messages published to a fresh in-memory queue."""
    celery_app.use("memory://")
    with celery_app.app.connection_for_read() as connection:
        queue = connection.SimpleQueue(celery_app.app.conf.task_default_queue)
        queue.clear()
        yield queue
        queue.clear()
        queue.close()


# Publishing


@pytest.mark.django_db(transaction=True)
def test_message_holds_the_id_and_nothing_else(user, wire, queue):
    row = start(user)
    message = queue.get(timeout=2)
    assert message.payload[:2] == [[str(row.pk)], {}]
    assert "61234567" not in str(message.body) + str(message.headers)


@pytest.mark.django_db(transaction=True)
def test_rolled_back_start_publishes_nothing(user, wire, queue):
    with transaction.atomic():
        start(user)
        transaction.set_rollback(True)
    assert queue.qsize() == 0
    assert not rows.exists()


@pytest.fixture
def closing_broker(celery_app):
    """A broker that closes each connection at once, and counts them."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            server.connections += 1

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.connections = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        celery_app.use(f"redis://127.0.0.1:{server.server_address[1]}/0")
        yield server
        server.shutdown()


@pytest.fixture
def silent_port():
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_start_succeeds_when_the_broker_is_down(user, wire, celery_app, url, caplog):
    celery_app.use(url)
    began = time.monotonic()
    row = start(user)
    assert time.monotonic() - began < 1
    assert row.status == "queued"
    assert warnings(caplog) == [("django_idenfy_phone.broker", "WARNING")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_silent_broker_delays_only_the_first_start(
    user, wire, celery_app, silent_port, scheme
):
    celery_app.use(f"{scheme}://127.0.0.1:{silent_port}/")
    began = time.monotonic()
    start(user)
    first = time.monotonic() - began
    start(user, "+37061234568")
    assert first < 1
    assert time.monotonic() - began - first < 0.4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("exists", [True, False])
def test_start_publishes_to_a_folder_of_files(user, wire, celery_app, tmp_path, exists):
    folder = tmp_path / "messages"
    if exists:
        folder.mkdir()
    conf = celery_app.app.conf
    before = conf.broker_transport_options
    conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": tmp_path / "control",
    }
    try:
        celery_app.use("filesystem://")
        began = time.monotonic()
        row = start(user)
        assert time.monotonic() - began < 1
    finally:
        conf.broker_transport_options = before
    assert row.status == "queued"
    assert len(list(folder.glob("*.msg"))) == exists


@pytest.mark.django_db(transaction=True)
def test_eager_send_leaves_after_the_commit(user, wire, eager):
    def answer(sock):
        assert rows.count() == 1
        connection.close()
        SENT(sock)

    wire.will(answer)
    assert outcome(start(user)) == "sent"


@pytest.mark.django_db(transaction=True)
def test_slow_eager_send_pauses_no_publishing(user, wire, eager):
    wire.will(lambda sock: (time.sleep(0.6), w.answer(500)(sock)))
    for digit in "12":
        start(user, NUMBER[:-1] + digit)
    assert len(wire.requests) == 2


# The tasks


def test_task_sends(user, wire):
    wire.will(SENT)
    row = start(user)
    tasks.send_code(str(row.pk))
    assert outcome(row) == "sent"


@pytest.mark.parametrize("arguments", [[], ["garbage"], [None], [7], [{}]])
def test_message_without_an_id_is_dropped(wire, arguments, caplog):
    tasks.send_code(*arguments)
    assert wire.requests == []
    assert warnings(caplog) == [("django_idenfy_phone.tasks", "WARNING")]


def test_message_of_another_release_is_dropped(user, wire, caplog):
    tasks.send_code(verification_id="x", attempt=2)
    assert warnings(caplog) == [("django_idenfy_phone.tasks", "WARNING")]


def test_task_ignores_arguments_beside_the_id(make, wire):
    wire.will(SENT)
    tasks.send_code(str(make("queued").pk), "more", attempt=2)
    assert len(wire.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_row_delivered_20_times_at_once_is_sent_once(make, wire, at_once):
    wire.will(SENT)
    row = make("queued")
    at_once(lambda _: tasks.send_code(str(row.pk)), range(20))
    assert (outcome(row), len(wire.requests)) == ("sent", 1)


# The sweep


@pytest.mark.django_db(transaction=True)
def test_sweep_notifies_workers_of_a_row_whose_message_was_lost(user, wire, queue):
    row = start(user)
    queue.clear()
    tasks.sweep()
    assert queue.get(timeout=2).payload[0] == [str(row.pk)]


@pytest.fixture
def sweep_delivers(settings):
    settings.IDENFY_PHONE_DELIVERY = "sweep"


@pytest.mark.django_db(transaction=True)
def test_sweep_may_send_by_itself_without_any_message(
    user, wire, queue, sweep_delivers
):
    row = start(user)
    assert outcome(row) == "queued"
    wire.will(SENT)
    tasks.sweep()
    assert (outcome(row), queue.qsize()) == ("sent", 0)


@pytest.mark.django_db(transaction=True)
def test_send_that_must_wait_for_the_sweep_publishes_nothing(
    make, wire, queue, sweep_delivers, clock
):
    wire.will(w.answer(429, Retry_After="7"), SENT)
    row, began = make("queued"), clock.now
    tasks.send_code(str(row.pk))
    assert (outcome(row), queue.qsize()) == ("queued", 0)
    assert row.next_send_at == began + timedelta(seconds=7)
    clock.now = row.next_send_at - timedelta(milliseconds=1)
    tasks.sweep()
    assert (outcome(row), len(wire.requests)) == ("queued", 1)
    clock.now = row.next_send_at
    tasks.sweep()
    assert (outcome(row), queue.qsize()) == ("sent", 0)


@pytest.mark.django_db(transaction=True)
def test_sweep_stops_publishing_after_a_failure(make, closing_broker, caplog):
    for _ in range(3):
        make("queued")
    tasks.sweep()
    assert warnings(caplog) == [("django_idenfy_phone.broker", "WARNING")]
    assert closing_broker.connections == 1


def test_sweep_dispatches_the_oldest_due_rows_first(make, wire):
    newer, older = make("queued"), make("queued", slot_reserved=True)
    age(older, MINUTE)
    # As a start leaves it.
    rows.filter(pk=newer.pk).update(next_send_at=F("created_at") - 10 * MINUTE)
    make("queued", next_send_at=newer.send_by)
    make("sending")
    assert dispatched_by_sweep() == [older.pk, newer.pk]


@pytest.mark.django_db(transaction=True)
def test_sweep_waits_for_the_end_of_a_pause_of_publishing(make, celery_app, queue):
    celery_app.use("redis://127.0.0.1:1/0")
    assert not tasks.notify_worker(make("queued").pk)
    began = time.monotonic()
    celery_app.point_to("memory://")
    tasks.sweep()
    assert queue.qsize() == 1
    assert time.monotonic() - began > 1.5


@pytest.fixture
def slow_receiver(queue):
    """How many messages each call of a receiver found in the queue."""

    def receiver(**kwargs):
        found.append(queue.qsize())

    found = []
    phone_verified.connect(receiver)
    yield found
    phone_verified.disconnect(receiver)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("seconds", "published"), [(-1, 1), (20, 2)])
def test_sweep_notifies_workers_before_it_announces(
    make, queue, slow_receiver, seconds, published
):
    now = timezone.now()
    for _ in range(2):
        make("queued")
    make("verified", verified_at=now, announce_at=now)
    budget = timedelta(seconds=seconds)
    maintenance.sweep(tasks.dispatch, budget)
    wait_until(receivers_ended)
    assert slow_receiver == [published]


@pytest.mark.django_db(transaction=True)
def test_sweep_without_time_announces_one_row(make, slow_receiver):
    now = timezone.now()
    for _ in range(2):
        make("verified", verified_at=now, announce_at=now)
    no_time = timedelta(seconds=-1)
    maintenance.sweep(tasks.dispatch, no_time, is_eager=True)
    assert len(slow_receiver) == 1


@pytest.mark.django_db(transaction=True)
def test_ten_sweeps_at_once_send_a_row_once(make, wire, at_once):
    wire.will(SENT)
    row = make("queued")

    def deliver(pk):
        tasks.send_code(str(pk))
        return True

    at_once(lambda _: maintenance.sweep(deliver), range(10))
    assert (outcome(row), len(wire.requests)) == ("sent", 1)
