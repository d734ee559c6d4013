"""PostgreSQL servers of our own, to be killed: alone, or with a standby."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from support.brokers import LOOPBACK, NotInstalled, free_port, wait_until

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Postgres:
    """It acknowledges a commit before it is on the disk, unless a client wants more."""

    def __init__(self, **settings: str) -> None:
        if not BINARIES:
            raise NotInstalled("install postgresql to run this")
        self.port = free_port()
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="idenfy-phone-"))
        # PostgreSQL refuses to run as root.
        self.options = {"user": "postgres"} if os.getuid() == 0 else {}
        if self.options:
            shutil.chown(self.folder, "postgres")
        self.make_data()
        self.process: subprocess.Popen[bytes] | None = None

    def make_data(self) -> None:
        self.run("initdb", "-D", "data", "-U", "postgres", "--auth=trust", "-N")

    def command(self, name: str, *arguments: str) -> list[str]:
        return [str(BINARIES[-1] / name), *arguments]

    def run(self, name: str, *arguments: str) -> bool:
        command = self.command(name, *arguments)
        run = subprocess.run(
            command, cwd=self.folder, capture_output=True, **self.options
        )
        return run.returncode == 0

    def start(self) -> None:
        settings = {
            "synchronous_commit": "off",
            # What is not flushed at a commit stays in memory.
            "wal_writer_delay": "10s",
            "unix_socket_directories": str(self.folder),
        } | self.settings
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(
            self.command("postgres", "-D", "data", f"-p{self.port}", *arguments),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self.options,
        )
        wait_until(lambda: self.run("pg_isready", "-h", LOOPBACK, f"-p{self.port}"))

    def crash(self) -> None:
        """Kill it as a power failure would."""
        self.process.kill()
        self.process.wait()
        subprocess.run(["pkill", "-9", "-f", str(self.folder)], check=False)

    def stop(self) -> None:
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)


class Standby(Postgres):
    """It begins as a copy of ``primary``, and follows it."""

    def __init__(self, primary: Postgres, **settings: str) -> None:
        self.primary = primary
        super().__init__(**settings)

    def make_data(self) -> None:
        primary = ("-h", LOOPBACK, f"-p{self.primary.port}", "-U", "postgres")
        self.run("pg_basebackup", *primary, "-D", "data", "-R", "-c", "fast", "-N")

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-D", "data")


class Alone:
    """One server. ``fail`` takes it down and up again."""

    def __init__(self) -> None:
        self.primary = Postgres()
        self.primary.start()

    def prepare(self) -> None:
        """Be ready to fail."""

    def fail(self) -> None:
        self.primary.crash()
        (self.primary.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self.primary.start()

    def stop(self) -> None:
        self.primary.stop()


class Replicated(Alone):
    """A primary and its standby. ``fail`` takes the primary down for good."""

    # As a primary, it waits for its standby.
    settings = {"synchronous_standby_names": "*"}
    standby: Standby | None = None

    def prepare(self) -> None:
        if self.standby is None:
            self.standby = Standby(self.primary, **self.settings)
            self.standby.start()

    def fail(self) -> None:
        self.primary.stop()
        self.standby.promote()
        self.primary, self.standby = self.standby, None

    def stop(self) -> None:
        super().stop()
        if self.standby is not None:
            self.standby.stop()


class FallenBehind(Replicated):
    """The standby receives no commits any more."""

    settings = {"primary_conninfo": ""}
