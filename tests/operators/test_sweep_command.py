"""idenfy_phone_sweep runs once or in a loop, also while the database fails."""

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

import django_idenfy_phone
from support import brokers

LOOP = ["-m", "django", "idenfy_phone_sweep", "--loop", "0.05"]
LOOP_BOUND_SECONDS = 60
FAILED = "A sweep failed (OperationalError); the loop continues.\n"


@pytest.mark.django_db(transaction=True)
def test_one_run_ends_a_row_past_its_deadline(make):
    late = make("queued", send_by=timezone.now() - timedelta(seconds=1))
    call_command("idenfy_phone_sweep")
    late.refresh_from_db()
    assert (late.status, late.failure) == ("failed", "too_late")


@pytest.mark.django_db(transaction=True)
def test_deliver_option_sends_without_a_broker(make, idenfy_sandbox):
    row = make("queued")
    call_command("idenfy_phone_sweep", "--deliver")
    row.refresh_from_db()
    assert (row.status, idenfy_sandbox.state.sends) == ("sent", 1)


@pytest.mark.django_db(transaction=True)
def test_command_sends_where_the_sweep_delivers(make, idenfy_sandbox, settings):
    settings.IDENFY_PHONE_DELIVERY = "sweep"
    row = make("queued")
    call_command("idenfy_phone_sweep")
    row.refresh_from_db()
    assert (row.status, idenfy_sandbox.state.sends) == ("sent", 1)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", "86401"])
def test_invalid_loop_interval_is_refused(seconds):
    with pytest.raises(CommandError, match="above 0"):
        call_command("idenfy_phone_sweep", f"--loop={seconds}")


@pytest.fixture
def loop_environment(tmp_path):
    """The environment of processes with a database of their own, without tables."""
    package = Path(django_idenfy_phone.__file__).parent
    return os.environ | {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "hosts.project.settings",
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[1]), str(package.parent)]
        ),
    }


@pytest.fixture
def loop(loop_environment, tmp_path):
    """The command in a loop, as a process whose database has no tables."""
    with subprocess.Popen(
        [sys.executable, *LOOP],
        cwd=tmp_path,
        env=loop_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # Reading from a process that was killed ends.
        timer = threading.Timer(LOOP_BOUND_SECONDS, process.kill)
        timer.start()
        yield process
        timer.cancel()
        process.kill()


RECOVERY = """
import django
django.setup()
from datetime import timedelta
from django.core.management import call_command
from django.utils import timezone
from django_idenfy_phone.models import PhoneVerification
from support.brokers import wait_until

call_command("migrate", verbosity=0)
PhoneVerification.objects.create(
    phone_number="+37060012345",
    region="LT",
    number_block="+3706001",
    send_by=timezone.now() - timedelta(seconds=1),
)
wait_until(PhoneVerification.objects.filter(failure="too_late").exists)
"""


def test_loop_works_again_after_an_outage(loop, loop_environment, tmp_path):
    assert FAILED in iter(loop.stderr.readline, "")
    command = [sys.executable, "-c", RECOVERY]
    subprocess.run(command, cwd=tmp_path, env=loop_environment, check=True)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM] * 3)
def test_loop_ends_on_sigint_and_sigterm(loop, signal_number):
    assert FAILED in iter(loop.stderr.readline, "")
    loop.send_signal(signal_number)
    assert loop.wait(timeout=30) == 0


@pytest.mark.django_db(transaction=True)
def test_loop_finishes_the_current_send_before_it_ends(make, idenfy_sandbox, tmp_path):
    rows = [make("queued") for _ in range(3)]
    names = [name for name in dir(settings) if name.startswith("IDENFY_")]
    host_settings = {name: getattr(settings, name) for name in names}
    host_settings["DATABASES"] = {"default": connection.settings_dict}
    with subprocess.Popen(
        [sys.executable, *LOOP, "--deliver"],
        cwd=tmp_path,
        env=brokers.environment(**host_settings),
        stdout=subprocess.DEVNULL,
    ) as loop:
        idenfy_sandbox.on_message = lambda message: loop.terminate()
        assert loop.wait(timeout=30) == 0
    for row in rows:
        row.refresh_from_db()
    assert sorted(row.status for row in rows) == ["queued", "queued", "sent"]
    assert idenfy_sandbox.state.sends == 1
