"""Who follows only README comes from an empty project to a verified number."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from contextlib import ExitStack

import pytest

from support.manual import README
from support.steps import run_module

GUIDE = README.partition("\n.. install\n")[2].partition("\n.. end of the quick start")[
    0
]
PASSWORD = "only-for-tests"
# An install, three snippets, five commands, and two calls.
STEPS = 11


def blocks(language):
    found = re.findall(rf"code-block:: {language}\n\n((?:    .*\n|\n)+)", GUIDE)
    return [re.sub("^    ", "", block, flags=re.MULTILINE) for block in found]


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.fixture
def ports():
    """Other tests may use the ports that README names."""
    return {"8000": free_port(), "8765": free_port()}


@pytest.fixture
def project(tmp_path, ports):
    run_module(tmp_path, "django", "startproject", "project", ".")
    for snippet in blocks("python"):
        name = snippet.splitlines()[0].removeprefix("# ")
        with (tmp_path / "project" / name).open("a") as file:
            file.write(snippet.replace("8765", ports["8765"]))
    return tmp_path


def manage_commands():
    lines = "".join(blocks("console")).splitlines()
    commands = [line.partition("  #")[0].split() for line in lines]
    return [words[3:] for words in commands if words[1:3] == ["python", "manage.py"]]


def manage(project, *words):
    environment = os.environ | {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.Popen(
        [sys.executable, "manage.py", *words],
        cwd=project,
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_to_end(project, *words):
    with manage(project, *words) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def call(url, body=None):
    login = b64encode(f"ona:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    data = body.encode() if body else None
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def eventually(attempt):
    deadline = time.monotonic() + 60
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_steps_are_as_few_as_they_were():
    assert len(blocks("python")) + "".join(blocks("console")).count("$ ") == STEPS


def test_a_number_is_verified_by_the_readme_alone(project, ports):
    migrate, superuser, server, sandbox, sweep = manage_commands()
    run_to_end(project, *migrate)
    run_to_end(project, "check", "--fail-level", "WARNING")
    run_to_end(project, *superuser, "--noinput", "--email", "ona@example.com")
    shown = re.findall(r"127\.0\.0\.1:8000(\S+)[\s\\]+--json '(.+)'", GUIDE)
    (start, number), (confirm, code) = shown
    with ExitStack() as stack:
        for words in (
            [*server, ports["8000"], "--noreload"],
            [*sandbox, "--port", ports["8765"]],
            sweep,
        ):
            process = stack.enter_context(manage(project, *words))
            stack.callback(process.terminate)
            if words[0] == sandbox[0]:
                printed = process.stdout
        site = f"http://127.0.0.1:{ports['8000']}"
        started = eventually(lambda: call(site + start, number))
        sms = next(line for line in printed if line.startswith("SMS to"))
        code = code.replace("CODE", re.search("code: ([0-9]{4})", sms)[1])
        # It may still be on its way: then 409.
        url = site + confirm.replace("ID", started["id"])
        confirmed = eventually(lambda: call(url, code))
    assert confirmed["is_verified"] is True
