"""What the rows share: a database each, the site's processes, the load."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from ..host import READY
from .database import Database
from .load import Post
from .processes import (
    LOOPBACK,
    NotMeasured,
    Process,
    Redis,
    Server,
    free_port,
    module,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_URL = "postgres://postgres@127.0.0.1:5432/postgres"
T = TypeVar("T")


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
        """The seconds that the call took."""
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
        self,
        requests: list[Post],
        status: int,
        clients: int,
        rate: float | None = None,
    ) -> Load:
        """Post all. Raises NotMeasured for an answer with another status."""
        cpu_before = self.ask("/cpu/")
        work = {
            "port": self.port,
            "clients": clients,
            "rate": rate,
            "requests": requests,
        }
        run = subprocess.run(
            module("benchmarks.support.load"),
            input=json.dumps(work),
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=True,
            start_new_session=True,
        )
        seen = json.loads(run.stdout)
        if others := set(seen["statuses"]) - {status}:
            raise NotMeasured(f"answers with status {sorted(others)}, not {status}")
        cpu = self.ask("/cpu/") - cpu_before
        return Load(seen["seconds"], seen["latencies"], cpu)


class Bench:
    """Servers and databases, all gone when its ``with`` block ends."""

    def __init__(self, is_short: bool) -> None:
        self.is_short = is_short
        self.url = os.environ.get("DATABASE_URL") or DEFAULT_URL
        self.server = Database(self.url)
        self.prefix = f"idenfy_phone_bench_{os.getpid()}"
        self.stack = ExitStack()
        self.count = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.redis = Redis(self.next_log("redis"))
            stack.callback(self.redis.stop)
            port = free_port()
            command = module("benchmarks.support.provider", str(port))
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            log = self.next_log("provider")
            self.provider = Server(port, command, environment, log)
            stack.callback(self.provider.stop)
            self.template = stack.enter_context(self.created("template1"))
            with self.rows_of_their_own():
                self.agent(self.template).call("migrate")
            self.template.add_users()
            self.template.connection.close()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    @contextmanager
    def rows_of_their_own(self) -> Iterator[None]:
        """Ends the processes and drops the databases that are made within."""
        outer, self.stack = self.stack, ExitStack()
        try:
            with self.stack:
                yield
        finally:
            self.stack = outer

    def pick(self, full: T, short: T) -> T:
        return short if self.is_short else full

    @property
    def rounds(self) -> range:
        return range(self.pick(5, 1))

    @contextmanager
    def created(self, template: str) -> Iterator[Database]:
        self.count += 1
        name = f"{self.prefix}_{self.count}"
        try:
            self.server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            yield Database(urlsplit(self.url)._replace(path=f"/{name}").geturl())
        finally:
            self.server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def database(self) -> Database:
        """A migrated database with users and no verifications."""
        template = self.template.url.rpartition("/")[2]
        return self.stack.enter_context(self.created(template))

    def environment(self, database: Database, **settings: object) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "benchmarks.host.settings",
            "DATABASE_URL": database.url,
            "CELERY_BROKER_URL": self.redis.url,
            "PROVIDER_URL": f"http://{LOOPBACK}:{self.provider.port}",
            "HOST_SETTINGS": json.dumps(settings),
        }

    def next_log(self, name: str) -> Path:
        self.count += 1
        return self.folder / f"{name}-{self.count}.log"

    def web(self, database: Database, **settings: object) -> Web:
        web = Web(self.environment(database, **settings), self.next_log("web"))
        self.stack.callback(web.stop)
        return web

    def agent(self, database: Database, **settings: object) -> Agent:
        environment = self.environment(database, **settings)
        agent = Agent(environment, self.next_log("agent"))
        self.stack.callback(agent.stop)
        return agent

    @contextmanager
    def worker(
        self, database: Database, *options: str, **settings: object
    ) -> Iterator[Process]:
        """A Celery worker, ready."""
        names = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        command = module("celery", "--app=benchmarks.host.celery", "worker", *names)
        environment = self.environment(database, **settings)
        worker = Process([*command, *options], environment, self.next_log("worker"))
        try:
            worker.wait_for_line(READY)
            yield worker
        finally:
            worker.stop()

    def wait_for_sends(self, count: int, worker: Process, seconds: float) -> None:
        """Until the provider got ``count`` sends."""

        def is_done() -> bool:
            worker.check_running()
            return len(self.provider.ask("/sends")) >= count

        wait_until(is_done, seconds)
