"""RESULTS.rst: the figures, and on what they were measured."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

from .support.bench import Bench

PACKAGES = (
    *("Django", "djangorestframework", "celery", "requests", "psycopg", "redis"),
    "gunicorn",
)
TEXT = """\
Results
=======

Written by ``tox run -e bench`` on {date:%Y-%m-%d}.

{machine}

Each figure is a median of {rounds} rounds, in which the app and what it is compared
with take turns. gunicorn runs one process with 4 threads. CPU a request and requests a
second are measured with 8 clients at once, other times of requests with one; "iDenfy
at" with 10 starts a second beside a worker with 32 threads.

Where the bar is "≤" the ratio is measured / against, and less is better. Elsewhere a
ratio of 1.00 is as good as what it is compared with.

{table}
"""


def write(path: Path, table: str, bench: Bench) -> None:
    text = TEXT.format(
        date=datetime.now(UTC),
        machine=fill(machine(bench), 88),
        rounds=len(bench.rounds),
        table=table,
    )
    path.write_text(text, encoding="utf-8")


def machine(bench: Bench) -> str:
    [[postgres]] = bench.server.execute("SHOW server_version")
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores and {ram:.0f} GiB of memory, which the database, the "
        "broker, iDenfy's stand-in and the load client share with the app; Python "
        f"{platform.python_version()}, {packages}, PostgreSQL {postgres.split()[0]}, "
        f"Redis {bench.redis.version()}."
    )
