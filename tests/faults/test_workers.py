"""No row is lost or billed twice, whatever happens to brokers and workers."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from django.conf import settings
from django.utils import timezone

from django_idenfy_phone import heartbeats, tasks
from django_idenfy_phone.records import Heartbeat
from django_idenfy_phone.services import get_verification
from django_idenfy_phone.testing import age
from support import brokers
from support import wire as w
from support.brokers import wait_until
from support.constants import MARKERS, NUMBER
from support.steps import dispatched_by_sweep, eventually, outcome, start

pytestmark = pytest.mark.django_db(transaction=True)
CELERY = [sys.executable, "-m", "celery", "-A", "hosts.project"]
LEASE = timedelta(seconds=46)
POOLS = [("redis", "prefork"), ("amqp", "threads")]


class Worker:
    def __init__(self, pool, environment, folder):
        self.log = folder / f"{uuid.uuid4()}.log"
        command = ["worker", f"--pool={pool}", "--concurrency=2", "--loglevel=INFO"]
        quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        if "KILL_POINT" in environment:
            quick.append("--include=support.kill_points")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*CELERY, *command, *quick],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self):
        return " ready." in self.log.read_text() or self.has_ended()

    def has_ended(self):
        return self.process.poll() is not None

    def kill(self):
        # The whole group, since the processes of its pool outlive it for a moment.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start_worker(own_settings, tmp_path):
    """Start a worker of a pool, which may kill itself at a point of kill_points."""
    started = []

    def start_worker(pool, kill_point=None, **more_settings):
        environment = brokers.environment(**own_settings, **more_settings)
        if kill_point:
            environment["KILL_POINT"] = kill_point
        worker = Worker(pool, environment, tmp_path)
        started.append(worker)
        wait_until(worker.is_ready)
        return worker

    yield start_worker
    for worker in started:
        worker.kill()
    logs = "".join(worker.log.read_text() for worker in started)
    assert not any(marker in logs for marker in MARKERS)


@pytest.fixture
def held_sandbox(idenfy_sandbox):
    """iDenfy bills, and answers only when ``released`` is set."""
    arrived, released = threading.Event(), threading.Event()

    def hold(message):
        arrived.set()
        released.wait(30)

    idenfy_sandbox.on_message = hold
    idenfy_sandbox.arrived, idenfy_sandbox.released = arrived, released
    yield idenfy_sandbox
    released.set()


def sends_and_billed(sandbox):
    """The number of requests to send, and of SMS that were billed."""
    return sandbox.state.sends, sandbox.state.billed(NUMBER)


on_both = pytest.mark.parametrize(("server", "pool"), POOLS, indirect=["server"])


@on_both
def test_idle_worker_answers_the_ping_of_a_sweep(publisher, start_worker, pool):
    heartbeats._idle_checks.reset()
    tasks.sweep()
    delivery = Heartbeat.objects.filter(name=heartbeats.DELIVERY)
    assert not delivery.exists()
    start_worker(pool)
    wait_until(delivery.exists)


@pytest.mark.parametrize(
    ("server", "pool"), [*POOLS, ("redis", "solo")], indirect=["server"]
)
def test_worker_of_each_pool_sends(user, idenfy_sandbox, publisher, start_worker, pool):
    start_worker(pool)
    row = start(user)
    eventually(lambda: outcome(row) == "sent")
    assert sends_and_billed(idenfy_sandbox) == (1, 1)


@on_both
@pytest.mark.parametrize("lose", ["flush", "restart"])
def test_sweep_publishes_again_what_the_broker_lost(
    user, idenfy_sandbox, server, publisher, start_worker, pool, lose
):
    row = start(user)
    assert publisher.count_waiting() == 1
    getattr(server, lose)()
    publisher.use(server.url)
    assert publisher.count_waiting() == 0
    start_worker(pool)
    assert outcome(row) == "queued"
    tasks.sweep()
    eventually(lambda: outcome(row) == "sent")
    assert sends_and_billed(idenfy_sandbox) == (1, 1)


@on_both
def test_worker_retries_without_a_sweep(user, wire, publisher, start_worker, pool):
    wire.will(
        w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="1"),
        w.answer(200, {"request_id": "r" * 32}),
    )
    start_worker(pool)
    row = start(user)
    wait_until(lambda: outcome(row) == "sent", seconds=30)
    assert (row.send_attempts, len(wire.requests)) == (2, 2)


@on_both
def test_row_is_sent_after_an_outage_of_the_broker(
    user, idenfy_sandbox, server, publisher, start_worker, pool
):
    start_worker(pool)
    server.kill()
    try:
        row = start(user)
    finally:
        server.start()
    eventually(lambda: outcome(row) == "sent")
    assert sends_and_billed(idenfy_sandbox) == (1, 1)


def test_row_that_was_never_published_fails_unsent(
    user, idenfy_sandbox, server, publisher
):
    publisher.use(server.url.replace(str(server.port), "1"))
    row = start(user)
    age(row, timedelta(minutes=3))
    assert get_verification(row.pk, user=user).failure == "too_late"
    assert dispatched_by_sweep() == []
    assert sends_and_billed(idenfy_sandbox) == (0, 0)


@on_both
@pytest.mark.parametrize("kill_point", ["before claim", "inside claim"])
def test_worker_killed_before_its_claim_loses_no_row(
    user, idenfy_sandbox, publisher, start_worker, pool, kill_point
):
    killed_worker = start_worker(pool, kill_point)
    row = start(user)
    eventually(killed_worker.has_ended)
    assert (outcome(row), row.send_attempts) == ("queued", 0)
    start_worker(pool)
    tasks.sweep()
    eventually(lambda: outcome(row) == "sent")
    assert sends_and_billed(idenfy_sandbox) == (1, 1)


@on_both
@pytest.mark.parametrize(
    ("kill_point", "billed"), [("before POST", 0), ("after answer", 1)]
)
def test_worker_killed_after_its_claim_leaves_the_row_unknown(
    user, idenfy_sandbox, publisher, start_worker, pool, kill_point, billed
):
    killed_worker = start_worker(pool, kill_point)
    row = start(user)
    eventually(killed_worker.has_ended)
    assert outcome(row) == "sending"
    age(row, LEASE)
    tasks.sweep()
    assert outcome(row) == "unknown"
    tasks.send_code(str(row.pk))
    assert sends_and_billed(idenfy_sandbox) == (billed, billed)
    age(row, LEASE)
    assert start(user).status == "queued"


@on_both
def test_worker_killed_in_its_post_never_sends_twice(
    user, held_sandbox, publisher, start_worker, pool
):
    worker = start_worker(pool)
    row = start(user)
    eventually(held_sandbox.arrived.is_set)
    worker.kill()
    held_sandbox.released.set()
    assert outcome(row) == "sending"
    age(row, LEASE)
    tasks.sweep()
    tasks.send_code(str(row.pk))
    assert outcome(row) == "unknown"
    assert sends_and_billed(held_sandbox) == (1, 1)


@on_both
def test_worker_finishes_its_post_on_sigterm(
    user, held_sandbox, publisher, start_worker, pool
):
    worker = start_worker(pool)
    row = start(user)
    eventually(held_sandbox.arrived.is_set)
    worker.process.terminate()
    wait_until(lambda: "Warm shutdown" in worker.log.read_text())
    held_sandbox.released.set()
    assert worker.process.wait(60) == 0
    assert outcome(row) == "sent"
    assert sends_and_billed(held_sandbox) == (1, 1)


@pytest.mark.parametrize(
    ("server", "pool"),
    [*POOLS, pytest.param("redis", "gevent", marks=pytest.mark.extra_server)],
    indirect=["server"],
)
def test_stuck_receivers_stop_no_worker(
    make, idenfy_sandbox, publisher, start_worker, pool
):
    if pool == "gevent":
        pytest.importorskip(pool, reason=f"pip install {pool} to run this")
    stuck = [*settings.INSTALLED_APPS, "hosts.stuck.Stuck"]
    worker = start_worker(pool, INSTALLED_APPS=stuck)
    now = timezone.now()
    with publisher.app.connection_for_write() as broker:
        for _ in range(2):
            make("verified", verified_at=now, announce_at=now)
            tasks.sweep.apply_async(connection=broker)
        row = make("queued")
        tasks.send_code.apply_async((str(row.pk),), connection=broker)
    wait_until(lambda: outcome(row) == "sent")
    assert not worker.has_ended()


def test_unreachable_result_backend_stops_no_worker(
    user, idenfy_sandbox, publisher, start_worker, at_once
):
    dead = "redis://127.0.0.1:1/0"
    worker = start_worker("threads", CELERY_RESULT_BACKEND=dead)
    publisher.app.conf.result_backend = dead
    numbers = [NUMBER, NUMBER[:-1] + "8"]
    try:
        # New threads, which hold no result backend from an earlier test.
        started = at_once(partial(start, user), numbers)
    finally:
        publisher.app.conf.result_backend = None
    eventually(lambda: {outcome(row) for row in started} == {"sent"})
    log = worker.log.read_text()
    assert "ERROR" not in log
    assert "Traceback" not in log
