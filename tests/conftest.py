import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone
from rest_framework.test import APIClient

from django_idenfy_phone import alarms, brake, heartbeats, site, tallies, tasks
from django_idenfy_phone.models import PhoneVerification
from support.celery_app import CeleryApp
from support.clock import Clock
from support.constants import LEAK, NUMBER
from support.pgbouncer import connected_through_pgbouncer
from support.wire import Wire

pytest_plugins = ["django_idenfy_phone.pytest_plugin", "pytester"]


def pytest_addoption(parser):
    text = "Connect to PostgreSQL through a PgBouncer in transaction mode."
    parser.addoption("--pgbouncer", action="store_true", help=text)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker, pytestconfig):
    """The test database is made and dropped without PgBouncer."""
    if pytestconfig.getoption("pgbouncer"):
        with django_db_blocker.unblock(), connected_through_pgbouncer():
            yield
    else:
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and item.get_closest_marker("extra_server"):
        # Who asked for these tests wants to know what is missing.
        report.outcome = "failed"
    for title, text in report.sections:
        if LEAK.search(text):
            report.outcome = "failed"
            report.longrepr = f"{title} holds a number, a secret, a token or an id"
    return report


@pytest.fixture
def user(django_user_model):
    return django_user_model.objects.create_user("ona")


@pytest.fixture
def api(user):
    client = APIClient()
    client.force_authenticate(user)
    return client


@pytest.fixture
def wire(settings):
    """A scripted iDenfy: see support.wire."""
    with Wire() as server:
        settings.IDENFY_PHONE_API_URL = server.url
        settings.IDENFY_PHONE_API_KEY = "test-key"
        settings.IDENFY_PHONE_API_SECRET = "test-secret"
        yield server


@pytest.fixture
def clock(monkeypatch):
    """The time stands still: see support.clock."""
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock)
    return clock


@pytest.fixture
def eager():
    """Each message runs at once in the process that publishes it, without a broker."""
    conf = tasks.send_code.app.conf
    conf.task_always_eager = True
    yield
    conf.task_always_eager = False


@pytest.fixture
def atomic_requests(monkeypatch):
    """The host has ATOMIC_REQUESTS on, for all databases."""
    for connection in connections.all():
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.fixture
def celery_app():
    """Publish elsewhere by ``celery_app.use(url)``: see support.celery_app."""
    app = CeleryApp()
    yield app
    app.restore()


@pytest.fixture(autouse=True)
def _fresh_process():
    """No test inherits the pause, the alarms or the counts that another one caused."""
    tasks.publisher.reset()
    tasks.ping_publisher.reset()
    alarms._alarmed_at.clear()
    site.forget()
    tallies._recounts.reset()
    heartbeats.forget()
    # The sweeps of a test publish no ping, unless it moves the clock.
    heartbeats._idle_checks.is_due()
    brake._looks.reset()


@pytest.fixture
def make(user):
    """Store a row in a given state, as the transitions would have left it."""

    def make(status="sent", **fields):
        now = timezone.now()
        late = status in ("sent", "verified", "expired", "locked")
        known = {
            "user": user,
            "phone_number": NUMBER,
            "region": "LT",
            "number_block": NUMBER[:-4],
            "status": status,
            "is_verified": status == "verified",
            "created_at": now,
            "next_send_at": now,
            "send_by": now + timedelta(minutes=3),
        }
        if status != "queued":
            known |= {"claimed_at": now, "send_attempts": 1}
        if status == "sending":
            known |= {"lease_until": now + timedelta(seconds=45)}
        if late:
            known |= {"request_id": uuid.uuid4().hex, "sent_at": now}
            known |= {"expires_at": now + timedelta(minutes=10)}
        return PhoneVerification.objects.create(**known | fields)

    return make


@pytest.fixture
def at_once():
    """Call a function in many threads at the same moment; return all results."""

    def at_once(function, arguments):
        arguments = list(arguments)
        barrier = threading.Barrier(len(arguments))

        def run(argument):
            barrier.wait()
            try:
                return function(argument)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(len(arguments)) as pool:
            return list(pool.map(run, arguments))

    return at_once
