"""A receiver that never returns stops no send, in any process and pool."""

import multiprocessing
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import connection, connections
from django.utils import timezone

from django_idenfy_phone import delivery, maintenance, tasks
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_verified, send_failed
from support import brokers
from support import wire as w
from support.brokers import wait_until
from support.steps import logged_levels, outcome, receivers_ended

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = timedelta(seconds=1)
REFUSED = w.refusal(400, "BAD_VALUE")
SENT = w.answer(200, {"request_id": "r" * 32})
# A sweep waits so long for its receivers.
SWEEP_SECONDS = maintenance.SWEEP_BUDGET.total_seconds()


class Receiver:
    """Returns only once it is released, or for a row that is not ``only``."""

    def __init__(self):
        self.released = threading.Event()
        self.connections = []
        self.only = None

    def __call__(self, verification, **kwargs):
        self.connections.append(connections["default"])
        if self.only in (None, verification):
            self.released.wait(60)

    @property
    def calls(self):
        return len(self.connections)


@pytest.fixture
def stuck():
    """A receiver of both signals that is stuck until the test ends."""
    receiver = Receiver()
    for each in (phone_verified, send_failed):
        each.connect(receiver)
    yield receiver
    receiver.released.set()
    wait_until(receivers_ended)
    for each in (phone_verified, send_failed):
        each.disconnect(receiver)


@pytest.fixture
def make_due(make):
    """Store verified rows whose signal is due."""

    def make_due(count=1):
        now = timezone.now()
        return [
            make("verified", verified_at=now, announce_at=now) for _ in range(count)
        ]

    return make_due


def sweep(budget=SECOND / 2):
    maintenance.sweep(lambda pk: True, budget)


def test_sweep_waits_only_as_long_as_its_budget(make_due, stuck):
    make_due()
    began = time.monotonic()
    sweep()
    assert 0.5 <= time.monotonic() - began < 5
    assert stuck.calls == 1


def test_thread_that_cannot_be_started_leaves_its_place_free(
    make_due, stuck, monkeypatch
):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    stuck.released.set()
    make_due()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            sweep()
    assert stuck.calls == 0
    sweep()
    assert stuck.calls == 1


def test_at_most_two_threads_of_a_process_are_stuck(make_due, stuck, caplog):
    make_due(5)
    for _ in range(4):
        sweep()
    assert stuck.calls == 2
    assert logged_levels(caplog) == ["CRITICAL"]


def test_ten_sweeps_at_once_use_two_threads(make_due, stuck, at_once):
    make_due(10)
    at_once(lambda _: sweep(5 * SECOND), range(10))
    assert stuck.calls == 2


def test_sweep_with_one_thread_stuck_announces_the_other_rows(make_due, stuck):
    [stuck.only] = make_due()
    sweep()
    others = make_due(3)
    sweep(10 * SECOND)
    for row in others:
        row.refresh_from_db()
    assert all(row.announced_at for row in others)


def test_row_of_a_stuck_receiver_is_left_alone_for_its_lease(make_due, stuck):
    [row] = make_due()
    sweep()
    sweep()
    assert stuck.calls == 1
    row.refresh_from_db()
    assert row.announce_at - timezone.now() > 100 * SECOND


def test_threads_are_used_again_once_receivers_return(make_due, stuck):
    make_due(2)
    sweep()
    sweep()
    stuck.released.set()
    wait_until(receivers_ended)
    make_due()
    sweep()
    assert stuck.calls == 3


def test_thread_closes_a_connection_of_its_own(make_due, stuck):
    make_due()
    sweep()
    stuck.released.set()
    wait_until(receivers_ended)
    [used] = stuck.connections
    assert used is not connections["default"]
    assert used.connection is None


def test_worker_goes_on_after_rows_that_failed(make, stuck, wire, caplog):
    refused = [make("queued", phone_number=f"+370600123{n}0") for n in range(4)]
    wire.will(*[REFUSED] * 4, SENT)
    began = time.monotonic()
    for row in [*refused, last := make("queued")]:
        delivery.deliver(row.pk)
    assert time.monotonic() - began < 15
    assert [outcome(row) for row in refused] == ["number_refused"] * 4
    assert (outcome(last), stuck.calls) == ("sent", 2)
    assert logged_levels(caplog).count("CRITICAL") == 1


def test_eager_sweep_runs_receivers_in_its_own_thread(make_due, eager):
    def receiver(**kwargs):
        threads.append(threading.current_thread())

    threads = []
    phone_verified.connect(receiver)
    make_due()
    tasks.sweep()
    phone_verified.disconnect(receiver)
    assert threads == [threading.current_thread()]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_has_threads_of_its_own(make_due, stuck):
    make_due(3)
    for _ in range(2):
        sweep()
    connection.close()
    child = multiprocessing.get_context("fork").Process(target=sweep)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    attempts = PhoneVerification.objects.values_list("announce_attempts", flat=True)
    assert list(attempts) == [1, 1, 1]


def test_loop_that_sends_goes_on(make, make_due, idenfy_sandbox, tmp_path):
    own = {name: getattr(settings, name) for name in dir(settings) if "IDENFY" in name}
    own["DATABASES"] = {"default": connection.settings_dict}
    own["INSTALLED_APPS"] = [*settings.INSTALLED_APPS, "hosts.stuck.Stuck"]
    [stuck_row] = make_due()
    command = [sys.executable, "-m", "django", "idenfy_phone_sweep"]
    with subprocess.Popen(
        [*command, "--loop", "0.2", "--deliver"],
        cwd=tmp_path,
        env=brokers.environment(**own),
        stdout=subprocess.DEVNULL,
    ) as loop:
        try:
            wait_until(lambda: is_taken(stuck_row))
            row = make("queued")
            wait_until(lambda: outcome(row) == "sent", SWEEP_SECONDS + 20)
        finally:
            loop.kill()


def is_taken(row):
    row.refresh_from_db()
    return row.announce_attempts > 0
