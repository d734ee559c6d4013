"""Sweeps and deliveries leave heartbeats, and a sweep asks whether a worker runs."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, transaction

from django_idenfy_phone import heartbeats, maintenance, tasks
from django_idenfy_phone.records import Heartbeat
from support import wire as w
from support.steps import logged_messages, outcome

pytestmark = pytest.mark.django_db(transaction=True)
SENT = w.answer(200, {"request_id": "3d50e1584e0946e789e0185c009aaadf"})
MINUTE = timedelta(minutes=1)


def beats():
    """When each part last showed that it runs."""
    return dict(Heartbeat.objects.exclude(name="tallies").values_list())


def test_sweep_leaves_a_heartbeat(clock):
    maintenance.sweep(lambda pk: True)
    assert beats() == {"sweep": clock.now}


def test_delivery_leaves_a_heartbeat(make, wire, clock):
    wire.will(SENT)
    tasks.send_code(str(make("queued").pk))
    assert beats() == {"delivery": clock.now}


def test_ping_leaves_the_heartbeat_of_a_delivery(clock):
    tasks.ping("")
    assert beats() == {"delivery": clock.now}


@pytest.mark.parametrize(("seconds", "written"), [(9, 0), (10, 10), (-9, 0)])
def test_heartbeat_is_written_every_10_seconds_at_most(clock, seconds, written):
    first = clock.now
    heartbeats.beat("sweep")
    clock.move(timedelta(seconds=seconds))
    heartbeats.beat("sweep")
    assert beats() == {"sweep": first + timedelta(seconds=written)}


def test_heartbeat_is_one_statement_every_10_seconds(django_assert_num_queries):
    with django_assert_num_queries(1):
        for _ in range(3):
            tasks.ping("")


def test_heartbeat_inside_a_transaction_is_not_written():
    with transaction.atomic():
        heartbeats.beat("sweep")
    assert beats() == {}
    heartbeats.beat("sweep")
    assert list(beats()) == ["sweep"]


def test_failure_to_beat_stops_no_delivery(make, wire, caplog):
    def fail(execute, sql, *arguments):
        if "heartbeat" in sql:
            raise OperationalError("some value")
        return execute(sql, *arguments)

    wire.will(SENT)
    row = make("queued")
    with connection.execute_wrapper(fail):
        tasks.send_code(str(row.pk))
    text = "A heartbeat was not written (OperationalError)."
    assert (outcome(row), logged_messages(caplog)) == ("sent", [("WARNING", text)])


@pytest.fixture
def pings(celery_app):
    """How many messages for a worker wait."""
    celery_app.use("memory://")
    with celery_app.app.connection_for_read() as broker:
        queue = broker.SimpleQueue(celery_app.app.conf.task_default_queue)
        queue.clear()
        yield queue.qsize
        queue.clear()
        queue.close()


@pytest.mark.parametrize(("minutes", "expected"), [(4.9, 0), (5, 1)])
def test_sweep_pings_a_worker_after_5_idle_minutes(clock, pings, minutes, expected):
    tasks.ping("")
    clock.move(minutes * MINUTE)
    for _ in range(3):
        tasks.sweep()
    assert pings() == expected


@pytest.mark.usefixtures("eager")
def test_worker_answers_a_ping(clock):
    clock.move(MINUTE)
    tasks.sweep()
    assert beats() == {"sweep": clock.now, "delivery": clock.now}


def test_sweep_that_delivers_pings_nobody(clock, pings, settings):
    settings.IDENFY_PHONE_DELIVERY = "sweep"
    clock.move(MINUTE)
    tasks.sweep()
    assert (pings(), beats()["delivery"]) == (0, clock.now)


def test_command_that_delivers_pings_nobody(clock, pings):
    clock.move(MINUTE)
    call_command("idenfy_phone_sweep", "--deliver")
    assert (pings(), beats()["delivery"]) == (0, clock.now)


@pytest.mark.parametrize(("minutes", "alarms"), [(10, 0), (12, 1)])
def test_worker_that_does_not_answer_is_an_alarm(clock, pings, caplog, minutes, alarms):
    tasks.ping("")
    clock.move(minutes * MINUTE)
    tasks.sweep()
    text = f"Nothing was delivered for {minutes} minutes: does a worker run?"
    assert logged_messages(caplog) == [("CRITICAL", text)] * alarms


def test_heartbeats_of_many_threads_are_one_row(at_once, clock):
    at_once(lambda _: heartbeats._write("sweep", clock.now), range(20))
    assert beats() == {"sweep": clock.now}
