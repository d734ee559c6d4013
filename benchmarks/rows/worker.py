"""A worker with 32 threads: at 0.3 s against 32 / 0.3 s, at 0 s against a floor."""

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from ..support.bench import Bench
from ..support.database import QUEUED, Database
from ..support.figures import Figure, by_cost, by_rate

THREADS = 32
SEND_CODE = "django_idenfy_phone.send_code"
SEND_FLOOR = "benchmarks.floors.send"
POOL = ("--pool=threads", f"--concurrency={THREADS}", "--loglevel=WARNING")


class Sends(NamedTuple):
    """Of the middle of a run, where the worker is neither starting nor ending."""

    rate: float
    cpu_each: float


def measure(bench: Bench) -> Iterator[Figure]:
    database = bench.database()
    count = bench.pick(960, 320)
    at_300_ms = [run(bench, database, SEND_CODE, count, 0.3) for _ in bench.rounds]
    rate = median(each.rate for each in at_300_ms)
    yield by_rate("worker at 0.3 s", rate, THREADS / 0.3)
    sends: dict[str, list[Sends]] = {SEND_CODE: [], SEND_FLOOR: []}
    for _ in bench.rounds:
        for task, each in sends.items():
            each.append(run(bench, database, task, count, 0))
    ours, floor = sends.values()
    rates = [median(each.rate for each in runs) for runs in (ours, floor)]
    yield by_rate("worker at 0 s: sends a second", *rates)
    cpus = [median(each.cpu_each for each in runs) for runs in (ours, floor)]
    yield by_cost("worker at 0 s: CPU a send", *cpus)


def queue(
    bench: Bench, database: Database, task: str, count: int, copies: int = 1
) -> None:
    """Rows and their messages, before a worker takes any."""
    bench.redis.empty()
    database.empty()
    keys: list[Any] = database.fill_floor(count)
    if task == SEND_CODE:
        keys = database.fill(count, QUEUED, since="interval '1 second'")
    with bench.scope():
        bench.agent(database).call("publish", task, keys * copies)


def run(bench: Bench, database: Database, task: str, count: int, delay: float) -> Sends:
    bench.provider.reset(delay)
    queue(bench, database, task, count)
    first, last = count // 5, count - count // 10
    with bench.worker(database, *POOL) as worker:
        bench.wait_for_sends(first, worker, 60)
        began, cpu_before = len(bench.provider.sends()), worker.cpu_seconds()
        bench.wait_for_sends(last, worker, 120)
        cpu, sends = worker.cpu_seconds() - cpu_before, bench.provider.sends()
    seconds = sends[last - 1] - sends[first - 1]
    return Sends((last - first) / seconds, cpu / (len(sends) - began))
