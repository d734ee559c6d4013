"""The command runs the sandbox and prints each SMS."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import CommandError, call_command

from django_idenfy_phone.management.commands.idenfy_phone_sandbox import Command
from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.sandbox.server import SandboxServer
from django_idenfy_phone.sandbox.state import Channel, Delivery, SandboxState
from sandbox.steps import SEND
from support.constants import NUMBER


@pytest.fixture
def command() -> Iterator[subprocess.Popen[str]]:
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    settings = {"DJANGO_SETTINGS_MODULE": "hosts.project.settings", "PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, "-m", "django", "idenfy_phone_sandbox", "--port", "0"],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_command_prints_each_sms_until_sigterm(
    command: subprocess.Popen[str],
) -> None:
    assert command.stdout
    lines = [command.stdout.readline() for _ in range(4)]
    url = lines[1].removeprefix("Sandbox: ").strip()
    body = {"phone_number": NUMBER, "sender_name": "Two\nlines"}
    auth = ("demo-key", "demo-secret")
    assert requests.post(url + SEND, json=body, auth=auth, timeout=5).ok
    [message] = requests.get(url + "/inbox.json", timeout=5).json()
    command.send_signal(signal.SIGTERM)
    rest, errors = command.communicate(timeout=30)
    assert (command.returncode, errors) == (0, "")
    assert "".join(lines) + rest == (
        'Using the API key "demo-key" and the secret "demo-secret". To use your own, '
        "set IDENFY_PHONE_API_KEY and IDENFY_PHONE_API_SECRET.\n"
        f"Sandbox: {url}\n"
        f"Inbox: {url}/\n"
        "Press Ctrl-C to stop.\n"
        f"SMS to {NUMBER}: The Two?lines code: {message['code']}. "
        "Valid for 5 minutes.\n"
    )


def test_command_prints_a_call_as_a_call() -> None:
    out = io.StringIO()
    message = SandboxState().send(NUMBER, delivery=Delivery(Channel.CALL))
    Command(stdout=out).print_message(message)
    assert out.getvalue() == f"Call to {NUMBER}: {message.text}\n"


def test_help_describes_each_magic_number() -> None:
    parser = Command().create_parser("manage.py", "idenfy_phone_sandbox")
    listed = " ".join(parser.format_help().partition("Magic numbers:")[2].split())
    assert listed == " ".join(f"{n} {s.description}" for n, s in SCENARIOS.items())


@pytest.mark.parametrize("port", [None, 65536])
def test_command_reports_port_that_it_cannot_use(
    server: SandboxServer, settings: Any, port: int | None
) -> None:
    settings.IDENFY_PHONE_API_KEY = settings.IDENFY_PHONE_API_SECRET = "own"
    port = port or server.port
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("idenfy_phone_sandbox", port=port, stdout=out)
    assert out.getvalue() == ""
    assert str(caught.value) == (
        f"Cannot listen on port {port}: it is in use or not allowed. "
        "Choose another with --port."
    )
