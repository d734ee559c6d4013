"""The demo verifies a number, serves its site and leaves no process behind."""

import itertools
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import django_idenfy_phone
from support.example_site import Client, run_in_example

PROJECT = Path(__file__).parents[2] / "example_project"
DEMO_VARIABLES = ("DATABASE_URL", "CELERY_", "IDENFY_PHONE_")
STEPS = [
    "The database (a SQLite file) is migrated",
    "The sandbox answers",
    "The Celery worker is ready",
    "The sweep loop is ready",
    "The web server answers",
    "Log in as demo@example.com: 200",
    "Confirmed number before: none",
    "Confirm the password: 200",
    "Post +37069876543 to start: 202",
    'Poll until sent: 200 {"status": "sent"',
    "Read the sandbox's inbox: The iDenfy code",
    "Post the wrong code",
    "Post the right code",
    "Confirmed number now: +37069876543",
]

# A limit of the size of files stands for a full disk.
FULL_DISK = """
import pathlib, resource, sys
from example.celery import app

with app.connection_for_write() as connection:
    queue = connection.SimpleQueue("celery")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        queue.put("x" * 1000)
    except OSError as error:
        print(error.strerror)
    print(list(pathlib.Path(sys.argv[1]).rglob("*.celery.msg")))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    queue.put("whole")
    print(queue.get(timeout=5).payload)
"""


class Demo(subprocess.Popen):
    def __init__(self, *arguments, **variables):
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(DEMO_VARIABLES)
        }
        self.marker = uuid.uuid4().hex
        own = {
            "DEMO_MARKER": self.marker,
            "PYTHONPATH": str(Path(django_idenfy_phone.__file__).parents[1]),
        }
        super().__init__(
            [sys.executable, "-m", "demo", *arguments],
            cwd=PROJECT,
            env=inherited | own | variables,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for_end(self):
        """Return the rest of its output, its exit status and the processes it left."""
        output, _ = self.communicate(timeout=180)
        left = [path for path in Path("/proc").glob("*") if self.started(path)]
        return output, self.returncode, left

    def started(self, process):
        try:
            return self.marker in (process / "environ").read_text(errors="replace")
        except OSError:
            return False


@pytest.fixture(scope="module")
def demos():
    """Start two demos at once: it is quicker, and they must not disturb each other."""
    with Demo("--once") as once, Demo() as serving:
        yield once, serving
        once.terminate()
        serving.terminate()


def test_once_completes_every_step_and_leaves_no_process(demos):
    output, status, left = demos[0].wait_for_end()
    steps = [line[8:] for line in output.splitlines() if line.startswith("ok")]
    assert [
        step for step, line in zip(STEPS, steps, strict=True) if step in line
    ] == STEPS
    assert (status, left) == (0, [])


def printed_places(demo):
    """What the serving demo prints, by how its lines begin."""
    lines = itertools.takewhile("Press Ctrl-C to stop.\n".__ne__, demo.stdout)
    return dict(re.findall(r"^(\w[\w -]+?)  +(.+)$", "".join(lines), re.MULTILINE))


def log_in(line, path=""):
    """The page that a login with what is printed leads to."""
    url, name, password = re.fullmatch("(.+)  (.+), password (.+)", line).groups()
    return Client("").submit(url + path, username=name, password=password)


def test_demo_serves_what_it_printed_until_ctrl_c(demos):
    places = printed_places(demos[1])
    sign_up = Client("").get(places["Sign up"]).text
    assert ">Sign up</h1>" in sign_up
    assert f'href="{places["Sandbox inbox"]}"' in sign_up
    assert "<title>Profile" in log_in(places["Log in"]).text
    admin = log_in(places["Admin"], "login/?next=/admin/")
    assert "Site administration" in admin.text
    assert "The iDenfy code" in Client("").get(places["Sandbox inbox"]).text
    assert list(Path(places["E-mails"].removesuffix(", one file each")).iterdir())
    demos[1].send_signal(signal.SIGINT)
    assert demos[1].wait_for_end() == ("Stopping.\nEverything is stopped.\n", 0, [])


def test_failed_step_is_printed_and_no_process_is_left(tmp_path):
    with Demo(DATABASE_URL=f"sqlite:///{tmp_path}/no/such/folder") as demo:
        output, status, left = demo.wait_for_end()
    assert "FAILED  The preparation ended with status 1." in output
    assert (status, left) == (1, [])


def test_sigterm_during_startup_stops_demo():
    with Demo() as demo:
        demo.stdout.readline()
        demo.send_signal(signal.SIGTERM)
        assert demo.wait_for_end() == ("Stopped before the end.\n", 130, [])


def test_once_is_refused_with_real_credentials():
    with Demo("--once", IDENFY_PHONE_API_KEY="k", IDENFY_PHONE_API_SECRET="s") as demo:
        output, status, left = demo.wait_for_end()
    assert output.startswith("FAILED  iDenfy charges for each SMS")
    assert (status, left) == (1, [])


def test_worker_of_the_demo_reads_no_part_of_a_message(tmp_path):
    lines = run_in_example(FULL_DISK, tmp_path)
    assert lines == ["File too large", "[]", "whole"]
    assert not list(tmp_path.rglob("*.part"))
