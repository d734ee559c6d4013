"""Processes that are ended with all that they started."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
READY_SECONDS = 60
TICKS = os.sysconf("SC_CLK_TCK")


class NotMeasured(Exception):
    """A row could not be measured. The message says why."""


def wait_until(is_true: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
    """Raises NotMeasured when that takes longer."""
    give_up_at = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > give_up_at:
            raise NotMeasured(f"not done after {seconds} s")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


class Process:
    """Leads a process group of its own, so that Ctrl-C reaches only the benchmark."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def check_running(self) -> None:
        if self.process.poll() is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-15:]
            raise NotMeasured("\n".join([f"{self.log.stem} ended:", *lines]))

    def wait_for(self, is_ready: Callable[[], bool]) -> None:
        def is_ready_or_ended() -> bool:
            self.check_running()
            return is_ready()

        wait_until(is_ready_or_ended)

    def wait_for_line(self, text: str) -> None:
        self.wait_for(lambda: text in self.log.read_text(errors="replace"))

    def cpu_seconds(self) -> float:
        """The CPU time of the process, which has no children."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS


class Server(Process):
    """Listens on ``port``."""

    def __init__(
        self, port: int, command: list[str], environment: Mapping[str, str], log: Path
    ) -> None:
        super().__init__(command, environment, log)
        self.port = port
        try:
            self.wait_for(self.is_open)
        except BaseException:
            self.stop()
            raise

    def is_open(self) -> bool:
        with suppress(OSError), socket.create_connection((LOOPBACK, self.port), 1):
            return True
        return False

    def ask(self, path: str, body: object = None) -> Any:
        """GET, or POST where there is a body; the answer is JSON."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{LOOPBACK}:{self.port}{path}"
        with urllib.request.urlopen(url, data, timeout=60) as answer:
            return json.load(answer)


class Redis(Server):
    def __init__(self, log: Path) -> None:
        port = free_port()
        options = ["--bind", LOOPBACK, "--save", "", "--appendonly", "no"]
        command = ["redis-server", "--port", str(port), *options]
        super().__init__(port, command, os.environ, log)
        self.url = f"redis://{LOOPBACK}:{port}/0"

    def command(self, text: str) -> str:
        """Such as "LLEN celery": the one line of its answer."""
        with socket.create_connection((LOOPBACK, self.port), 5) as connection:
            connection.sendall(f"{text}\r\n".encode())
            return connection.makefile().readline().strip()

    def empty(self) -> None:
        self.command("FLUSHALL")

    def waiting(self) -> int:
        """How many messages no worker took yet."""
        return int(self.command("LLEN celery").removeprefix(":"))

    def version(self) -> str:
        run = subprocess.run(
            ["redis-server", "--version"], capture_output=True, text=True, check=True
        )
        return run.stdout.partition("v=")[2].split()[0]


class Provider(Server):
    """iDenfy's stand-in: see ``provider``."""

    def __init__(self, log: Path) -> None:
        port = free_port()
        command = module("benchmarks.support.provider", str(port))
        super().__init__(port, command, os.environ | {"PYTHONPATH": str(ROOT)}, log)
        self.url = f"http://{LOOPBACK}:{port}"

    def reset(self, delay: float) -> None:
        """From now on answer after so many seconds, and forget the sends."""
        self.ask("/reset", {"delay": delay})

    def sends(self) -> list[float]:
        """When each send came, in seconds of a clock that only grows."""
        times: list[float] = self.ask("/sends")
        return times
