"""Start beside a worker with 32 threads, while iDenfy answers in 0, 0.3 and 30 s."""

from collections.abc import Iterator
from statistics import median, quantiles

from ..support.bench import Bench
from ..support.database import Database
from ..support.figures import Figure, by_time
from ..support.requests import starts
from ..support.site import Load, Web
from .worker import POOL

DELAYS = (0, 0.3, 30)
CLIENTS = 8
# Starts a second: what the machine can do beside the worker.
RATE = 10


def measure(bench: Bench) -> Iterator[Figure]:
    database = bench.database()
    web = bench.web(database)
    web.load(starts(20), 202, CLIENTS)
    loads: dict[float, list[Load]] = {delay: [] for delay in DELAYS}
    for _ in bench.rounds:
        for delay in DELAYS:
            loads[delay].append(beside_worker(bench, database, web, delay))
    for name, of in (("median", median), ("99 %", percentile_99)):
        times = {
            delay: median(of(each.latencies) for each in loads[delay])
            for delay in DELAYS
        }
        for delay in DELAYS[1:]:
            title = f"start, iDenfy at {delay} s: {name}"
            yield by_time(title, times[delay], times[0])


def percentile_99(values: list[float]) -> float:
    return quantiles(values, n=100)[-1]


def beside_worker(bench: Bench, database: Database, web: Web, delay: float) -> Load:
    bench.redis.empty()
    database.empty()
    bench.provider.reset(delay)
    with bench.worker(database, *POOL):
        return web.load(starts(bench.pick(150, 40)), 202, CLIENTS, RATE)
