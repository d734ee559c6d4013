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

PROJECT = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.1"
READY_SECONDS = 60
STOP_SECONDS = 15


class Failed(Exception):
    """A step failed. The message says which one."""


class Stopped(Exception):
    """A signal asked the demo to stop."""


def print_line(line: str = "") -> None:
    print(line, flush=True)


def print_ok(line: str) -> None:
    print_line(f"ok      {line}")


class StopFlag:
    """Whether a signal has asked the demo to stop.

    The signal handler raises no exception: it could interrupt the code between the
    start of a process and its registration. It sets no threading.Event: a handler that
    interrupts Event.wait() can find the lock held and wait for it forever.
    """

    is_set = False

    def set(self, *args: object) -> None:
        self.is_set = True


def catch_signals() -> StopFlag:
    stop_flag = StopFlag()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_flag.set)
    return stop_flag


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

    def check_running(self) -> None:
        status = self.process.poll()
        if status is not None:
            raise Failed(f"The {self.name} ended with status {status}.")

    def stop(self) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        # Also kills the processes that the service started.
        with suppress(ProcessLookupError, PermissionError):
            killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class ProcessGroup:
    """Starts services, and stops all of them when its `with` block ends.

    Each service runs in its own session, so that Ctrl-C reaches only this process.
    """

    folder: Path
    environment: Mapping[str, str]
    stop_flag: StopFlag
    services: list[Service] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        try:
            if exc_type not in (None, Stopped):
                self.print_last_lines()
        finally:
            # Printing fails when the terminal is closed. The services must stop anyway.
            for service in reversed(self.services):
                service.stop()

    def start(self, name: str, *command: str) -> Service:
        log = self.folder / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=PROJECT,
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
        """Run a command and wait until it succeeds."""
        service = self.start(name, *command)
        self.wait(service, lambda: service.process.poll() == 0)
        self.services.remove(service)

    def wait_for_port(self, service: Service, port: int) -> None:
        self.wait(service, lambda: is_open(port))
        print_ok(f"The {service.name} answers at http://{LOOPBACK}:{port}.")

    def wait_for_line(self, service: Service, text: str) -> None:
        self.wait(service, lambda: text in service.output)
        print_ok(f"The {service.name} is ready, as process {service.process.pid}.")

    def wait(self, service: Service, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready():
            service.check_running()
            if time.monotonic() > deadline:
                raise Failed(f"The {service.name} was not ready in {READY_SECONDS} s.")
            self.pause(0.05)

    def wait_until_stopped(self) -> None:
        """Wait for a signal. Fail if a service ends before it."""
        with suppress(Stopped):
            while True:
                for service in self.services:
                    service.check_running()
                self.pause(0.5)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)
        if self.stop_flag.is_set:
            raise Stopped

    def print_last_lines(self) -> None:
        for service in self.services:
            print_line(f"The last lines of the {service.name}:")
            for line in service.output.splitlines()[-15:]:
                print_line(f"    {line}")
