"""A PostgreSQL server of our own, to be killed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from support.brokers import LOOPBACK, NotInstalled, free_port, wait_until

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Postgres:
    """It acknowledges a commit before it is on the disk, unless a client wants more."""

    def __init__(self) -> None:
        if not BINARIES:
            raise NotInstalled("install postgresql to run this")
        self.port = free_port()
        self.url = f"postgres://postgres@{LOOPBACK}:{self.port}/postgres"
        self.folder = Path(tempfile.mkdtemp(prefix="idenfy-phone-"))
        # PostgreSQL refuses to run as root.
        self.options = {"user": "postgres"} if os.getuid() == 0 else {}
        if self.options:
            shutil.chown(self.folder, "postgres")
        self.run("initdb", "-D", "data", "-U", "postgres", "--auth=trust")
        self.process: subprocess.Popen[bytes] | None = None

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
        }
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

    def restart(self) -> None:
        self.crash()
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self.start()

    def stop(self) -> None:
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)
