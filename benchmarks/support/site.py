"""The processes of the measured site, and the load on them."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from .load import Post
from .processes import LOOPBACK, ROOT, NotMeasured, Server, free_port, module


class Load(NamedTuple):
    """What the clients of one load saw, and the web process's CPU time for it."""

    seconds: float
    latencies: list[float]
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU seconds a request."""
        return self.cpu_seconds / len(self.latencies)


class Agent:
    """A process of the site that is told what to run: see ``agent``."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                module("benchmarks.support.agent"),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        self.log = log

    def call(self, name: str, *arguments: object) -> float:
        """The seconds that the call took, or that it returned."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([name, arguments]), file=self.process.stdin, flush=True)
        if not (answer := self.process.stdout.readline()):
            raise NotMeasured(self.log.read_text(errors="replace")[-2000:])
        return float(answer)

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Web(Server):
    """One gunicorn process with 4 threads."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        port = free_port()
        options = ["--workers=1", "--threads=4", "--keep-alive=75", "--log-level=error"]
        command = module("gunicorn", f"--bind={LOOPBACK}:{port}", *options)
        super().__init__(port, [*command, "benchmarks.host.wsgi"], environment, log)

    def load(
        self, requests: list[Post], status: int, clients: int, rate: float | None = None
    ) -> Load:
        """Post all: see ``load``. Raises NotMeasured for an answer of other status."""
        cpu_before = self.ask("/cpu/")
        seen = run_clients(
            {"port": self.port, "clients": clients, "rate": rate, "requests": requests}
        )
        if others := set(seen["statuses"]) - {status}:
            raise NotMeasured(f"answers with status {sorted(others)}, not {status}")
        cpu = self.ask("/cpu/") - cpu_before
        return Load(seen["seconds"], seen["latencies"], cpu)


def run_clients(work: dict[str, Any]) -> Any:
    run = subprocess.run(
        module("benchmarks.support.load"),
        input=json.dumps(work),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=True,
        start_new_session=True,
    )
    return json.loads(run.stdout)
