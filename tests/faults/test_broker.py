"""Real Redis and RabbitMQ, real workers, and what becomes of them."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import amqp
import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from django_idenfy_phone import maintenance, tasks
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.services import get_verification, start_verification
from django_idenfy_phone.testing import age
from support import brokers
from support import wire as w
from support.brokers import wait_until
from support.constants import MARKERS, NUMBER

pytestmark = pytest.mark.django_db(transaction=True)
rows = PhoneVerification.objects
SERVERS = {"redis": brokers.Redis, "amqp": brokers.RabbitMQ}
CELERY = [sys.executable, "-m", "celery", "-A", "hosts.project"]
LEASE = timedelta(seconds=46)
PUBLISH_BOUND = 0.6


@pytest.fixture(scope="session")
def servers():
    """Each started when the first test wants it."""
    running = {}

    def get(scheme):
        if scheme == "redis":
            pytest.importorskip("redis", reason="pip install redis to run this")
        if scheme not in running:
            try:
                server = SERVERS[scheme]()
            except brokers.NotInstalled as error:
                pytest.skip(str(error))
            running[scheme] = server
            server.start()
        return running[scheme]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture(params=SERVERS)
def server(request, servers):
    found = servers(request.param)
    found.flush()
    return found


class Publisher:
    """The test process's own Celery app."""

    def __init__(self, app):
        self.app = app

    def use(self, url):
        self.app.conf.broker_url = self.app.conf.broker_write_url = url
        tasks._drop_links()

    def read(self):
        with self.app.connection_for_read() as connection:
            queue = connection.SimpleQueue(self.app.conf.task_default_queue)
            message = queue.get(timeout=5)
            message.ack()
            queue.close()
        return message

    def waiting(self):
        """How many messages nobody took yet."""
        name = self.app.conf.task_default_queue
        with self.app.connection_for_read() as connection:
            try:
                return connection.SimpleQueue(name).qsize()
            except amqp.ChannelError:
                # There is no queue before the first message.
                return 0

    def read_ids(self):
        return [self.read().payload[0][0] for _ in range(self.waiting())]


@pytest.fixture
def publisher(server):
    app = tasks.send_code.app
    before = app.conf.broker_url, app.conf.broker_write_url
    publisher = Publisher(app)
    publisher.use(server.url)
    yield publisher
    app.conf.broker_url, app.conf.broker_write_url = before
    tasks._drop_links()


def eventually(is_true, tries=30):
    """With a sweep now and then: on a busy machine a publish may fail."""
    for _ in range(tries):
        with suppress(TimeoutError):
            return wait_until(is_true, seconds=2)
        tasks.sweep()
    raise TimeoutError(f"{is_true} stayed false")


def published():
    """On a busy machine a publish may be slow, and the next one waits for it."""
    wait_until(hint)


def start(user, number=NUMBER):
    return start_verification(number, user=user)


def hint():
    return tasks.hint(uuid.uuid4())


def seconds_of(function):
    started = time.monotonic()
    function()
    return time.monotonic() - started


def outcome(row):
    row.refresh_from_db()
    return row.failure or row.status


# The bounded publish


@contextmanager
def refused(server, publisher):
    publisher.use(server.url.replace(str(server.port), "1"))
    yield


@contextmanager
def syn_dropped(server, publisher):
    with brokers.full_backlog() as port:
        publisher.use(server.url.replace(str(server.port), str(port)))
        yield


@contextmanager
def silent(server, publisher):
    with socket.create_server((brokers.LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        publisher.use(server.url.replace(str(server.port), str(port)))
        yield


@contextmanager
def frozen_while_warm(server, publisher):
    published()
    with server.frozen():
        yield


FAULTS = [refused, syn_dropped, silent, frozen_while_warm]
faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)


@faults
def test_a_broken_broker_holds_a_publish_up_for_half_a_second(server, publisher, fault):
    told = []
    with fault(server, publisher):
        assert seconds_of(lambda: told.append(hint())) <= PUBLISH_BOUND
    assert told == [False]


@faults
def test_a_start_outlives_a_broken_broker_which_then_has_rest(
    api, wire, server, publisher, at_once, fault
):
    wire.will(w.answer(200, {"request_id": "r" * 32}))
    with fault(server, publisher):
        began = time.monotonic()
        answer = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
        assert time.monotonic() - began < 1
        assert answer.status_code == 202
        # In no other thread either.
        assert at_once(lambda _: seconds_of(hint), [1])[0] < 0.1
    publisher.use(server.url)
    published()
    assert time.monotonic() - began >= 2
    row = rows.get()
    assert row.status == "queued"
    eventually(lambda: str(row.pk) in publisher.read_ids() or tasks.sweep())
    for _ in range(2):
        tasks.send_code(str(row.pk))
    assert (outcome(row), len(wire.requests)) == ("sent", 1)


@pytest.mark.parametrize("server", ["amqp"], indirect=True)
def test_a_frozen_broker_with_tls_holds_nobody_up_either(server, publisher):
    conf = publisher.app.conf
    conf.broker_use_ssl = {"cert_reqs": ssl.CERT_NONE}
    try:
        publisher.use(server.tls_url)
        published()
        with server.frozen():
            assert seconds_of(hint) <= PUBLISH_BOUND
    finally:
        conf.broker_use_ssl = False


GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys, time, uuid
import django
django.setup()
from hosts.project import celery_app
from django_idenfy_phone import tasks

while not tasks.hint(uuid.uuid4()):
    time.sleep(0.1)
print("warm", flush=True)
sys.stdin.readline()
began = time.monotonic()
told = tasks.hint(uuid.uuid4())
print(told, time.monotonic() - began)
"""


def test_a_frozen_broker_holds_no_greenlet_up(server, own_settings, tmp_path):
    pytest.importorskip("gevent", reason="pip install gevent to run this")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", GEVENT],
        cwd=tmp_path,
        env=brokers.environment(**own_settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "warm\n"
        with server.frozen():
            told, seconds = process.communicate("\n", timeout=20)[0].split()
    assert (told, float(seconds) <= PUBLISH_BOUND) == ("False", True)


@pytest.mark.parametrize("dead", ["refused", "syn dropped"])
def test_the_next_of_several_brokers_is_tried_after_a_fault(server, publisher, dead):
    with brokers.full_backlog() as port:
        first = server.url.replace(
            str(server.port), "1" if dead == "refused" else str(port)
        )
        publisher.use(f"{first};{server.url}")
        published()
        # And kept to.
        published()
    publisher.use(server.url)
    assert publisher.waiting() >= 2


def test_threads_that_hang_together_have_met_one_fault(server, publisher, at_once):
    with server.frozen():
        assert at_once(lambda _: hint(), range(4)) == [False] * 4
    assert tasks._faults == 1


def test_the_message_in_the_broker_holds_the_id_and_no_more(user, wire, publisher):
    row = start(user)
    message = publisher.read()
    assert message.payload[:2] == [[str(row.pk)], {}]
    assert NUMBER[4:] not in f"{message.body}{message.headers}{message.properties}"
    # No worker's clock may drop it or hold it back.
    assert (message.headers["eta"], message.headers["expires"]) == (None, None)


def test_what_must_wait_is_hinted_for_then(make, wire, publisher):
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7"))
    row = make("queued")
    tasks.send_code(str(row.pk))
    message = publisher.read()
    assert message.payload[:2] == [[str(row.pk)], {}]
    wait = datetime.fromisoformat(message.headers["eta"]) - timezone.now()
    assert timedelta(seconds=2) < wait <= timedelta(seconds=7)
    assert message.headers["expires"] is None


@pytest.mark.filterwarnings("ignore:The EMAIL_")
@faults
def test_the_hosts_celery_settings_stay_as_they_were(server, publisher, fault):
    def all_settings():
        return {k: v for k, v in publisher.app.conf.items() if "broker_" not in k}

    before = all_settings()
    options = publisher.app.connection_for_write().transport_options
    published()
    with fault(server, publisher):
        hint()
    assert all_settings() == before
    assert publisher.app.connection_for_write().transport_options == options


def open_ports(server):
    """This machine's ends of its connections to a server."""
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [line.split()[1:4] for line in table]
    established = [(here, there) for here, there, state in ends if state == "01"]
    remote = f":{server.port:04X}"
    return {here for here, there in established if there.endswith(remote)}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to run this")
def test_a_healthy_connection_is_kept(server, publisher, at_once):
    before = open_ports(server)
    published()
    opened = open_ports(server) - before
    for _ in range(10):
        published()
        # An ASGI server has a thread for each request.
        at_once(lambda _: published(), [1])
    assert open_ports(server) - before == opened != set()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to run this")
def test_threads_have_a_connection_each_and_ten_are_kept(server, publisher, at_once):
    before = open_ports(server)
    published()
    of_one = len(open_ports(server) - before)
    at_once(lambda _: published(), range(30))
    assert publisher.waiting() >= 31
    assert of_one <= len(open_ports(server) - before) <= 10 * of_one


def test_a_kept_connection_that_the_broker_closed_is_opened_anew(server, publisher):
    published()
    server.restart()
    # The first to connect may have to wait.
    assert publisher.waiting() == 0
    assert hint()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to run this")
def test_a_connection_that_was_idle_for_long_is_not_trusted(
    server, publisher, monkeypatch
):
    published()
    before = open_ports(server)
    monkeypatch.setattr(tasks, "KEEP_IDLE", 0)
    published()
    assert open_ports(server) - before


FORK = """
import os, sys, uuid
import django
django.setup()
from hosts.project import celery_app
from django_idenfy_phone import tasks

connects = []
def watch(event, args):
    if event == "socket.connect":
        connects.append(args[1])
sys.addaudithook(watch)

def publish():
    connects.clear()
    return tasks.hint(uuid.uuid4()), bool(connects)

# A busy machine may be slow: no hint shall wait for that.
tasks.PUBLISH_TIMEOUT = 10
assert publish() == (True, True)
assert publish() == (True, False)
child = os.fork()
assert publish() == (True, child == 0)
if child:
    assert os.wait()[1] == 0
    assert publish() == (True, False)
"""


@pytest.fixture
def own_settings(server):
    """What a process of the same project needs: database, broker and iDenfy."""
    own = {n: getattr(settings, n) for n in dir(settings) if n.startswith("IDENFY_")}
    own["DATABASES"] = {"default": connection.settings_dict}
    own["CELERY_BROKER_URL"] = server.url
    return own


def test_a_fork_gets_a_connection_of_its_own(own_settings, tmp_path):
    environment = brokers.environment(**own_settings)
    subprocess.run(
        [sys.executable, "-c", FORK], check=True, cwd=tmp_path, env=environment
    )


# Workers

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
        # Its pool too, which outlives it for a moment.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def work(own_settings, tmp_path):
    """Start a worker."""
    started = []

    def work(pool, kill_point=None, **more_settings):
        environment = brokers.environment(**own_settings, **more_settings)
        if kill_point:
            environment["KILL_POINT"] = kill_point
        worker = Worker(pool, environment, tmp_path)
        started.append(worker)
        wait_until(worker.is_ready)
        return worker

    yield work
    for worker in started:
        worker.kill()
    logs = "".join(worker.log.read_text() for worker in started)
    assert not any(marker in logs for marker in MARKERS)


@pytest.fixture
def held(idenfy_sandbox):
    """iDenfy bills, and answers when it is let go."""
    arrived, released = threading.Event(), threading.Event()

    def hold(message):
        arrived.set()
        released.wait(30)

    idenfy_sandbox.on_message = hold
    idenfy_sandbox.arrived, idenfy_sandbox.released = arrived, released
    yield idenfy_sandbox
    released.set()


def books(sandbox):
    """Requests that arrived, and SMS that were billed."""
    return sandbox.state.sends, sandbox.state.billed(NUMBER)


on_both = pytest.mark.parametrize(("server", "pool"), POOLS, indirect=["server"])


@pytest.mark.parametrize(
    ("server", "pool"), [*POOLS, ("redis", "solo")], indirect=["server"]
)
def test_every_pool_sends(user, idenfy_sandbox, publisher, work, pool):
    work(pool)
    row = start(user)
    eventually(lambda: outcome(row) == "sent")
    assert books(idenfy_sandbox) == (1, 1)


@on_both
@pytest.mark.parametrize("lose", ["flush", "restart"])
def test_what_a_broker_lost_is_hinted_by_the_sweep(
    user, idenfy_sandbox, server, publisher, work, pool, lose
):
    row = start(user)
    assert publisher.waiting() == 1
    getattr(server, lose)()
    publisher.use(server.url)
    assert publisher.waiting() == 0
    work(pool)
    assert outcome(row) == "queued"
    tasks.sweep()
    eventually(lambda: outcome(row) == "sent")
    assert books(idenfy_sandbox) == (1, 1)


@on_both
def test_a_worker_tries_again_by_itself(user, wire, publisher, work, pool):
    wire.will(
        w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="1"),
        w.answer(200, {"request_id": "r" * 32}),
    )
    work(pool)
    row = start(user)
    # No sweep runs.
    wait_until(lambda: outcome(row) == "sent", seconds=30)
    assert (row.send_attempts, len(wire.requests)) == (2, 2)


@on_both
def test_a_broker_that_was_down_is_found_again(
    user, idenfy_sandbox, server, publisher, work, pool
):
    work(pool)
    server.kill()
    try:
        row = start(user)
    finally:
        server.start()
    eventually(lambda: outcome(row) == "sent")
    assert books(idenfy_sandbox) == (1, 1)


def test_a_row_that_no_broker_announced_in_time_costs_nothing(
    user, idenfy_sandbox, server, publisher
):
    with refused(server, publisher):
        row = start(user)
    age(row, timedelta(minutes=3))
    assert get_verification(row.pk, user=user).failure == "too_late"
    assert maintenance.due() == []
    assert books(idenfy_sandbox) == (0, 0)


@on_both
@pytest.mark.parametrize("kill_point", ["before claim", "inside claim"])
def test_a_worker_killed_before_its_claim_loses_nothing(
    user, idenfy_sandbox, publisher, work, pool, kill_point
):
    doomed = work(pool, kill_point)
    row = start(user)
    eventually(doomed.has_ended)
    assert (outcome(row), row.send_attempts) == ("queued", 0)
    work(pool)
    tasks.sweep()
    eventually(lambda: outcome(row) == "sent")
    assert books(idenfy_sandbox) == (1, 1)


@on_both
@pytest.mark.parametrize(
    ("kill_point", "billed"), [("before POST", 0), ("after answer", 1)]
)
def test_a_worker_killed_after_its_claim_leaves_the_row_unknown(
    user, idenfy_sandbox, publisher, work, pool, kill_point, billed
):
    doomed = work(pool, kill_point)
    row = start(user)
    eventually(doomed.has_ended)
    assert outcome(row) == "sending"
    age(row, LEASE)
    tasks.sweep()
    assert outcome(row) == "unknown"
    tasks.send_code(str(row.pk))
    assert books(idenfy_sandbox) == (billed, billed)
    age(row, LEASE)
    assert start(user).status == "queued"


@on_both
def test_a_worker_killed_in_its_post_never_sends_twice(
    user, held, publisher, work, pool
):
    worker = work(pool)
    row = start(user)
    eventually(held.arrived.is_set)
    worker.kill()
    held.released.set()
    assert outcome(row) == "sending"
    age(row, LEASE)
    tasks.sweep()
    tasks.send_code(str(row.pk))
    assert outcome(row) == "unknown"
    assert books(held) == (1, 1)


@on_both
def test_a_deploy_lets_a_post_finish(user, held, publisher, work, pool):
    worker = work(pool)
    row = start(user)
    eventually(held.arrived.is_set)
    worker.process.terminate()
    wait_until(lambda: "Warm shutdown" in worker.log.read_text())
    held.released.set()
    assert worker.process.wait(60) == 0
    assert outcome(row) == "sent"
    assert books(held) == (1, 1)


def test_no_result_backend_is_needed(user, idenfy_sandbox, publisher, work, at_once):
    dead = "redis://127.0.0.1:1/0"
    worker = work("threads", CELERY_RESULT_BACKEND=dead)
    publisher.app.conf.result_backend = dead
    numbers = [NUMBER, NUMBER[:-1] + "8"]
    try:
        # In threads of their own, where no backend of before is remembered.
        started = at_once(partial(start, user), numbers)
    finally:
        publisher.app.conf.result_backend = None
    eventually(lambda: {outcome(row) for row in started} == {"sent"})
    log = worker.log.read_text()
    assert "ERROR" not in log
    assert "Traceback" not in log
