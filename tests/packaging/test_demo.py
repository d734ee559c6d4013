"""The demo as its user meets it: real processes, none of them left behind."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import django_idenfy_phone

DEMO = Path(__file__).parents[2] / "example_project" / "demo.py"
OTHERS = ("DATABASE_URL", "CELERY_", "IDENFY_PHONE_")
STEPS = [
    "The database (a SQLite file) is migrated",
    "The sandbox answers",
    "The Celery worker is ready",
    "The sweep loop is ready",
    "The web server answers",
    "Log in as demo: 200",
    "Confirmed number before: none",
    "Post +37069876543 to start: 202",
    'Ask until sent: 200 {"status": "sent"',
    "Read the sandbox's inbox: The iDenfy code",
    "Post the wrong code",
    "Post the right code",
    "Confirmed number now: +37069876543",
]


class Demo(subprocess.Popen):
    def __init__(self, *arguments, **variables):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(OTHERS)}
        self.mark = uuid.uuid4().hex
        own = {
            "DEMO_MARK": self.mark,
            "PYTHONPATH": str(Path(django_idenfy_phone.__file__).parents[1]),
        }
        super().__init__(
            [sys.executable, DEMO, *arguments],
            env=kept | own | variables,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self):
        """What it still prints; its status; the processes that it left behind."""
        output, _ = self.communicate(timeout=180)
        return output, self.returncode, list(filter(self.owns, Path("/proc").glob("*")))

    def owns(self, process):
        try:
            return self.mark in (process / "environ").read_text(errors="replace")
        except OSError:
            return False


@pytest.fixture(scope="module")
def demos():
    """Two at once: that is quicker, and they must not get in each other's way."""
    with Demo("--once") as once, Demo() as serving:
        yield once, serving
        once.terminate()
        serving.terminate()


def test_one_run_comes_true(demos):
    output, status, left = demos[0].end()
    steps = [line[8:] for line in output.splitlines() if line.startswith("ok")]
    assert [
        step for step, line in zip(STEPS, steps, strict=True) if step in line
    ] == STEPS
    assert (status, left) == (0, [])


def test_it_serves_until_ctrl_c(demos):
    assert "Press Ctrl-C to stop.\n" in iter(demos[1].stdout.readline, "")
    assert demos[1].poll() is None
    demos[1].send_signal(signal.SIGINT)
    assert demos[1].end() == ("Stopping.\nEverything is stopped.\n", 0, [])


def test_a_failing_step_is_told_and_nothing_is_left(tmp_path):
    with Demo(DATABASE_URL=f"sqlite:///{tmp_path}/no/such/folder") as demo:
        output, status, left = demo.end()
    assert "FAILED  The preparation ended by itself, with status 1." in output
    assert (status, left) == (1, [])


def test_it_can_be_stopped_before_its_end():
    with Demo() as demo:
        demo.stdout.readline()
        demo.send_signal(signal.SIGTERM)
        assert demo.end() == ("Stopped before the end.\n", 130, [])


def test_no_sms_is_paid_for_by_itself():
    with Demo("--once", IDENFY_PHONE_API_KEY="k", IDENFY_PHONE_API_SECRET="s") as demo:
        output, status, left = demo.end()
    assert output.startswith("FAILED  The real iDenfy's SMS cost money")
    assert (status, left) == (1, [])
