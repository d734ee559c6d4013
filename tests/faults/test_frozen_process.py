"""A process that is frozen inside a transaction holds nobody up for long."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection

from django_idenfy_phone import delivery, transactions
from django_idenfy_phone.models import PhoneVerification, ProviderGate
from support import brokers
from support import wire as w
from support.constants import MARKERS, NUMBER
from support.steps import dispatched_by_sweep, outcome, post_start

pytestmark = pytest.mark.django_db(transaction=True)
rows = PhoneVerification.objects
SCRIPT = Path(brokers.__file__).with_name("freeze.py")
NETWORK = "9.9.9.9"
OTHER = "+37062234567"
# What everybody else still waits for, while the frozen process has a second.
SECONDS = 5


@pytest.fixture
def server():
    """The test needs a server, which can end the transaction of a frozen process."""
    if connection.vendor == "sqlite":
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")


@pytest.fixture
def sqlite(monkeypatch):
    """The test needs SQLite, where a frozen process keeps its locks."""
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite cannot end a frozen transaction")
    monkeypatch.setattr(transactions, "LOCK_TIMEOUT", timedelta(seconds=1))


class FrozenProcess:
    def __init__(self, environment, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-P", SCRIPT, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        _pid, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def resume(self):
        """Let it go on to its end; return the last line that it prints."""
        self.process.send_signal(signal.SIGCONT)
        output, _ = self.process.communicate(timeout=60)
        assert not any(marker in output for marker in MARKERS)
        return output.splitlines()[-1]

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def freeze(wire, project_settings):
    """Freeze a process in the middle of a step: see support.freeze."""
    started = []

    def freeze(*arguments):
        wire.will(
            lambda sock: w.answer(200, {"request_id": os.urandom(16).hex()})(sock)
        )
        environment = brokers.environment(**project_settings)
        started.append(FrozenProcess(environment, *map(str, arguments)))
        return started[-1]

    yield freeze
    for each in started:
        each.kill()


def seconds_of(function, *arguments):
    began = time.monotonic()
    result = function(*arguments)
    return result, time.monotonic() - began


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("gates", [0, 1])
def test_deliveries_go_on_while_a_claim_is_frozen(make, freeze, wire, gates):
    ProviderGate.objects.bulk_create([ProviderGate()] * gates)
    row, other = make("queued"), make("queued", phone_number=OTHER)
    frozen = freeze("claim", row.pk)
    for each in (other, row):
        _, seconds = seconds_of(delivery.deliver, each.pk)
        assert (outcome(each), each.send_attempts) == ("sent", 1)
        assert seconds < SECONDS
    assert frozen.resume() in ("None", "OperationalError")
    row.refresh_from_db()
    assert (row.status, row.send_attempts, len(wire.requests)) == ("sent", 1, 2)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("number", "network"), [(NUMBER, "8.8.8.8"), (OTHER, NETWORK)])
def test_starts_go_on_while_a_start_is_frozen(api, freeze, number, network):
    frozen = freeze("start", NUMBER, NETWORK)
    response, seconds = seconds_of(
        lambda: post_start(api, number=number, REMOTE_ADDR=network)
    )
    assert (response.status_code, seconds < SECONDS) == (202, True)
    assert [row.phone_number.as_e164 for row in rows.all()] == [number]
    frozen.resume()


@pytest.mark.usefixtures("server")
def test_frozen_start_stores_no_second_row(api, freeze):
    frozen = freeze("start", NUMBER, NETWORK)
    assert post_start(api).status_code == 202
    assert frozen.resume() in ("CooldownActive", "OperationalError")
    assert rows.count() == 1


@pytest.mark.usefixtures("sqlite")
@pytest.mark.parametrize("step", ["claim", "start"])
def test_start_gives_up_on_a_frozen_process(api, make, freeze, step):
    frozen = freeze(
        *(step, make("queued").pk) if step == "claim" else (step, NUMBER, NETWORK)
    )
    response, seconds = seconds_of(lambda: post_start(api, number=OTHER))
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert 1 <= seconds < SECONDS
    frozen.resume()
    assert [row.phone_number.as_e164 for row in rows.all()] == [NUMBER]


@pytest.mark.usefixtures("sqlite")
def test_delivery_comes_again_after_a_frozen_claim(make, freeze, wire):
    row, other = make("queued"), make("queued", phone_number=OTHER)
    frozen = freeze("claim", row.pk)
    delay, seconds = seconds_of(delivery.deliver, other.pk)
    assert (delay, outcome(other)) == (timedelta(seconds=2), "queued")
    assert 1 <= seconds < SECONDS
    assert frozen.resume() == "None"
    assert dispatched_by_sweep() == [other.pk]
    assert delivery.deliver(other.pk) is None
    assert (outcome(row), outcome(other), len(wire.requests)) == ("sent", "sent", 2)
