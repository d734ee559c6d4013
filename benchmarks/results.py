"""RESULTS.rst: the figures, and on what they were measured."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from .support.bench import Bench

PACKAGES = [
    "Django",
    "djangorestframework",
    "celery",
    "requests",
    "psycopg",
    "redis",
    "gunicorn",
]
TEXT = """\
Results
=======

Written by ``tox run -e bench`` on {date:%Y-%m-%d}, on {cores} cores with {ram} GiB of
memory that also run the database, the broker, iDenfy's stand-in and the load client:
Python {python}, {packages},
PostgreSQL {postgres}, Redis {redis}.

Each figure is a median of {rounds} rounds, in which the app and what it is compared
with take turns. Of times the ratio is measured / against, so that less is better,
where the bar is "≤"; elsewhere a ratio of 1.00 is as good as what it is compared with.

{table}
"""


def write(path: Path, table: str, bench: Bench) -> None:
    [[postgres]] = bench.server.execute("SHOW server_version")
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    text = TEXT.format(
        date=datetime.now(UTC),
        cores=os.cpu_count(),
        ram=round(ram),
        python=platform.python_version(),
        packages=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        postgres=postgres.split()[0],
        redis=bench.redis.version(),
        rounds=len(bench.rounds),
        table=table,
    )
    path.write_text(text, encoding="utf-8")
