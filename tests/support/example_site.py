"""The example project as real processes: web server, worker, sweep and sandbox."""

import os
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

import django_idenfy_phone

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "example_project"
sys.path.append(str(PROJECT))

from demo import __main__ as demo  # noqa: E402
from demo.client import Client  # noqa: E402
from demo.processes import ProcessGroup, StopFlag, free_port  # noqa: E402

__all__ = ["Client", "Site", "run_in_example", "run_site"]


class Site:
    def __init__(self, running: demo.Site, group: ProcessGroup) -> None:
        self.url, self.sandbox_url = running.url, running.sandbox_url
        self.folder, self.password = group.folder, running.password
        self.services, self.environment = group.services, group.environment

    def check_running(self) -> None:
        for service in self.services:
            service.check_running()

    def messages(self, number: str) -> list[Any]:
        answer = requests.get(f"{self.sandbox_url}/inbox.json", timeout=5)
        return [each for each in answer.json() if each["phone_number"] == number]

    def sql(self, statement: str, *values: Any) -> Any:
        """Change what is stored, or read it: the first column of all rows."""
        database = sqlite3.connect(self.folder / "example.sqlite3", timeout=20)
        with database:
            rows = database.execute(statement, values).fetchall()
        database.close()
        return [row[0] for row in rows]

    def run(self, script: str, *arguments: str) -> list[str]:
        """The lines that a script prints with the settings of the site."""
        return _run(
            f"import django; django.setup()\n{script}", self.environment, arguments
        )

    def clear_pauses(self) -> None:
        self.sql("DELETE FROM django_idenfy_phone_providergate")

    def rename_number(self, number: str, new: str) -> None:
        """Change the number of stored verifications."""
        table = "django_idenfy_phone_phoneverification"
        statement = f"UPDATE {table} SET phone_number = ? WHERE phone_number = ?"
        self.sql(statement, new, number)

    def forget_magic_numbers(self) -> None:
        """No cooldown of an earlier test."""
        table = "django_idenfy_phone_phoneverification"
        self.sql(f"DELETE FROM {table} WHERE phone_number LIKE '+1202555%'")

    def mails(self) -> list[str]:
        return [path.read_text() for path in (self.folder / "mail").glob("*")]


@contextmanager
def run_site(folder: Path):
    running = demo.Site(free_port(), free_port(), "right horse battery")
    environment = demo.environment(folder, running)
    for name in ("DATABASE_URL", "CELERY_BROKER_URL"):
        environment.pop(name, None)
    paths = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment["DJANGO_SETTINGS_MODULE"] = "hosts.pages"
    with ProcessGroup(folder, environment, StopFlag()) as group:
        demo.start_site(group, running)
        yield Site(running, group)


def run_in_example(script: str, folder: Path) -> list[str]:
    """The lines that a script in the example project prints, on SQLite."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(django_idenfy_phone.__file__).parents[1]),
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "EXAMPLE_DATA": str(folder),
    }
    environment.pop("DATABASE_URL", None)
    return _run(script, environment, [str(folder)])


def _run(script, environment, arguments):
    command = [sys.executable, "-c", script, *arguments]
    run = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.decode().splitlines()
