"""Processes that start together and stop together."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import killpg
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
READY_SECONDS = 60
STOP_SECONDS = 15


class Failed(Exception):
    """A step did not come true; the text says which."""


class Stopped(Exception):
    """Somebody wants the demo to end."""


def say(line: str = "") -> None:
    print(line, flush=True)


def ok(line: str) -> None:
    say(f"ok      {line}")


class Stopping:
    """Whether somebody wants the demo to end.

    No exception: it could come between the start of a process and its record. And no
    Event: a signal that interrupts its wait() may find its lock held for ever.
    """

    is_set = False

    def set(self, *args: object) -> None:
        self.is_set = True


def catch_signals() -> Stopping:
    stopping = Stopping()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stopping.set)
    return stopping


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


@dataclass
class Service:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def check(self) -> None:
        status = self.process.poll()
        if status is not None:
            raise Failed(f"The {self.name} ended by itself, with status {status}.")

    def stop(self) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        # And whatever it started itself.
        with suppress(ProcessLookupError, PermissionError):
            killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Stage:
    """Starts services, and stops them when it is left.

    Each has its own process group, so that Ctrl-C reaches this process alone.
    """

    folder: Path
    environment: Mapping[str, str]
    stopping: Stopping
    services: list[Service] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        try:
            if exc_type not in (None, Stopped):
                self.tell_last_lines()
        finally:
            # Also when the terminal is gone, and nothing can be told any more.
            for service in reversed(self.services):
                service.stop()

    def start(self, name: str, *command: str) -> Service:
        log = self.folder / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=HERE,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        service = Service(name, process, log)
        self.services.append(service)
        return service

    def run(self, name: str, *command: str) -> None:
        """Run a command to its end."""
        service = self.start(name, *command)
        self.wait(service, lambda: service.process.poll() == 0)
        self.services.remove(service)

    def wait_for_port(self, service: Service, port: int) -> None:
        self.wait(service, lambda: is_open(port))
        ok(f"The {service.name} answers at http://{LOOPBACK}:{port}.")

    def wait_for_line(self, service: Service, text: str) -> None:
        self.wait(service, lambda: text in service.output)
        ok(f"The {service.name} is ready, as process {service.process.pid}.")

    def wait(self, service: Service, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready():
            service.check()
            if time.monotonic() > deadline:
                raise Failed(f"The {service.name} was not ready in {READY_SECONDS} s.")
            self.pause(0.05)

    def serve(self) -> None:
        """Until somebody stops the demo, or a service ends by itself."""
        with suppress(Stopped):
            while True:
                for service in self.services:
                    service.check()
                self.pause(0.5)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)
        if self.stopping.is_set:
            raise Stopped

    def tell_last_lines(self) -> None:
        for service in self.services:
            say(f"The last lines of the {service.name}:")
            for line in service.output.splitlines()[-15:]:
                say(f"    {line}")
