"""What the rows share: a database each, the site's processes, the load."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

from ..host import READY
from .database import Database
from .processes import ROOT, Process, Provider, Redis, module, wait_until
from .site import Agent, Web

DEFAULT_URL = "postgres://postgres@127.0.0.1:5432/postgres"
T = TypeVar("T")


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
            self.provider = Provider(self.next_log("provider"))
            stack.callback(self.provider.stop)
            self.template = stack.enter_context(self.created("template0"))
            with self.scope():
                self.agent(self.template).call("migrate")
            self.template.add_users()
            self.template.connection.close()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Ends the processes and drops the databases that are made in the block."""
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
        return range(self.pick(3, 1))

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
            "PROVIDER_URL": self.provider.url,
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
            return len(self.provider.sends()) >= count

        wait_until(is_done, seconds)
