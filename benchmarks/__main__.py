"""The speed of the app against floors that do the least, measured in the same run.

``tox run -e bench`` measures all rows and writes RESULTS.rst, in about twenty minutes.
``tox run -e bench -- --short --only start`` measures one in a few seconds, with small
tables, and only prints it. Both may be given alone. In place, from the root of the
checkout, with any Python that has the packages of tox.ini's ``bench``:

    python -m benchmarks --only start --short

It needs gunicorn, redis-server, and a PostgreSQL at DATABASE_URL (by default
postgres://postgres@127.0.0.1:5432/postgres) in which it makes and drops databases of
its own. The exit status is 1 where a row could not be measured: a slow one is no fault.
"""

import argparse
import signal
import sys
import traceback
from pathlib import Path

import django
from django.conf import settings

from .results import write
from .support.bench import Bench
from .support.figures import Figure, Target, as_table
from .targets import ROWS, TARGETS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESULTS = Path(__file__).with_name("RESULTS.rst")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--short", action="store_true", help="small tables, no file")
    rows = ", ".join(ROWS)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=rows)
    return parser.parse_args()


def line(figure: Figure) -> tuple[str, ...]:
    target = TARGETS.get(figure.name, Target("", ""))
    return (*figure[:3], f"{figure.ratio:.2f}", *target)


def measure(bench: Bench, names: list[str]) -> tuple[list[Figure], bool]:
    """All figures, and whether each row could be measured."""
    figures: list[Figure] = []
    is_complete = True
    for name in names:
        print(f"{name} …", flush=True)
        try:
            bench.redis.empty()
            with bench.scope():
                for figure in ROWS[name](bench):
                    figures.append(figure)
                    print("   ", *line(figure), sep="  ", flush=True)
        except Exception:
            traceback.print_exc()
            is_complete = False
    return figures, is_complete


def stop(number: int, frame: object) -> None:
    """Leave all ``with`` blocks, once: tox and the terminal both send a Ctrl-C."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    chosen = options()
    for number in SIGNALS:
        signal.signal(number, stop)
    # For connections alone: the site runs in processes of its own.
    settings.configure(USE_TZ=True)
    django.setup()
    with Bench(chosen.short) as bench:
        names = chosen.only or list(ROWS)
        figures, is_complete = measure(bench, names)
        table = as_table(line(figure) for figure in figures)
        print(f"\n{table}")
        if is_complete and not chosen.short and not chosen.only:
            write(RESULTS, table, bench)
    sys.exit(not is_complete)


if __name__ == "__main__":
    main()
