"""A process that is killed while it confirms verifies nothing, or what iDenfy said."""

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from django_idenfy_phone import maintenance
from django_idenfy_phone.signals import phone_verified
from django_idenfy_phone.testing import age
from django_idenfy_phone.transitions import CHECK_LEASE
from support import brokers
from support.brokers import wait_until
from support.constants import NUMBER
from support.steps import (
    outcome,
    post_code,
    receivers_ended,
    status_and_body,
    verification_body,
)

pytestmark = pytest.mark.django_db(transaction=True)
SCRIPT = Path(brokers.__file__).with_name("confirm.py")
# The sandbox accepts its right code, and gives no answer.
SILENT = "+12025550120"


@pytest.fixture
def confirming(project_settings):
    """Confirm in another process, which may kill itself: see support.confirm."""
    started = []

    def confirming(row, code, moment="never"):
        command = [sys.executable, "-P", SCRIPT, str(row.pk), code, moment]
        environment = brokers.environment(**project_settings)
        started.append(
            subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        )
        return started[-1]

    yield confirming
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def send(make, idenfy_sandbox):
    """Send a code to a number; return the row and the code."""

    def send(number=NUMBER):
        row = make("queued", phone_number=number)
        code = idenfy_sandbox.code_for(number)
        row.refresh_from_db()
        return row, code

    return send


@pytest.fixture
def announced():
    """The ids of the rows that phone_verified was sent for in this process."""

    def receiver(verification, **kwargs):
        pks.append(verification.pk)

    pks = []
    phone_verified.connect(receiver)
    yield pks
    wait_until(receivers_ended)
    phone_verified.disconnect(receiver)


@pytest.mark.parametrize(("number", "moment"), [(SILENT, "never"), (NUMBER, "before")])
def test_code_of_a_killed_confirm_is_spent_and_not_wrong(
    api, send, confirming, idenfy_sandbox, number, moment
):
    row, code = send(number)
    process = confirming(row, code, moment)
    wait_until(lambda: idenfy_sandbox.state.checks_for(row.request_id) == 1)
    if moment == "never":
        process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert post_code(api, row, code).json()["code"] == "check_in_progress"
    age(row, CHECK_LEASE)
    response = post_code(api, row, code)
    changes = {"phone_number": row.masked_number, "checks_left": 1, "code_spent": True}
    assert status_and_body(response) == (200, verification_body(row, **changes))
    assert (outcome(row), idenfy_sandbox.state.checks) == ("sent", 2)


def test_sweep_announces_within_150_seconds_what_a_killed_confirm_verified(
    send, confirming, announced, clock
):
    row, code = send()
    assert confirming(row, code, "after").wait(30) == -signal.SIGKILL
    assert (outcome(row), row.announced_at, announced) == ("verified", None, [])
    for _ in range(timedelta(seconds=150) // maintenance.SWEEP_INTERVAL):
        clock.move(maintenance.SWEEP_INTERVAL)
        maintenance.sweep(lambda pk: True)
    assert announced == [row.pk]
    row.refresh_from_db()
    assert row.announced_at == clock.now
