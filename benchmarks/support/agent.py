"""A process of the site that runs one call after another, each timed.

Reads lines of JSON, ``[NAME, ARGUMENTS]``, and prints the seconds of each call, or
those that it returns.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from typing import Any

import django

django.setup()

from celery import current_app  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

from benchmarks.host import celery  # noqa: E402
from django_idenfy_phone import tasks  # noqa: E402

celery.app.set_current()


def migrate() -> None:
    call_command("migrate", run_syncdb=True, verbosity=0)


def publish(task: str, keys: list[Any]) -> None:
    """One message for each key, for the worker."""
    with current_app.connection_for_write() as connection:
        for key in keys:
            current_app.send_task(task, [key], connection=connection)


def sweep() -> None:
    tasks.sweep()


times: list[float] = []


def note_time(execute: Any, *arguments: Any) -> Any:
    began = time.perf_counter()
    found = execute(*arguments)
    times.append(time.perf_counter() - began)
    return found


def purge() -> None:
    with connection.execute_wrapper(note_time):
        tasks.purge()


def slowest_statement() -> float:
    """Of the purges so far."""
    return max(times)


def status() -> None:
    # It exits with 1 where a person is needed.
    with suppress(SystemExit):
        call_command("idenfy_phone_status", stdout=StringIO())


def notify() -> None:
    assert tasks.notify_worker(uuid.uuid4()), "the broker is down or slow"


def delay() -> None:
    tasks.send_code.delay(str(uuid.uuid4()))


staff = Client()


def login() -> None:
    # No key of the users who were filled in.
    staff.force_login(User.objects.create_superuser("operator", pk=1_000_000))


def page(url: str, form: dict[str, str]) -> None:
    response = staff.post(url, form) if form else staff.get(url)
    assert response.status_code == 200, response.status_code


CALLS: dict[str, Callable[..., float | None]] = {
    each.__name__: each
    for each in (
        *(migrate, publish, sweep, purge, slowest_statement, status, notify, delay),
        *(login, page),
    )
}


def main() -> None:
    for line in sys.stdin:
        name, arguments = json.loads(line)
        began = time.perf_counter()
        told = CALLS[name](*arguments)
        took = time.perf_counter() - began
        print(took if told is None else told, flush=True)


if __name__ == "__main__":
    main()
