"""SEND_RATE 20/s, 4 worker processes, every message twice."""

from bisect import bisect_left
from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.figures import Figure, by_rate
from .worker import SEND_CODE, queue

RATE, BURST = 20, 20
WINDOW = 10
POOL = ("--pool=prefork", "--concurrency=4", "--loglevel=WARNING")


def measure(bench: Bench) -> Iterator[Figure]:
    runs = [run(bench, bench.pick(500, 160)) for _ in bench.rounds]
    rate = median(steady_rate(sends) for sends in runs)
    yield by_rate("pacing: rate", rate, RATE)
    most, allowed = max(map(most_in_window, runs)), BURST + RATE * WINDOW
    name = f"pacing: most in {WINDOW} s"
    yield Figure(name, str(most), str(allowed), most / allowed)


def run(bench: Bench, count: int) -> list[float]:
    """When each send reached iDenfy, in seconds."""
    bench.provider.reset(0)
    with bench.scope():
        database = bench.database()
        queue(bench, database, SEND_CODE, count, copies=2)
        with bench.worker(
            database, *POOL, IDENFY_PHONE_SEND_RATE=f"{RATE}/s"
        ) as worker:
            bench.wait_for_sends(count, worker, 10 + 3 * count / RATE)
    return bench.provider.sends()


def steady_rate(sends: list[float]) -> float:
    """After the burst, and before the last rows wait for their turn."""
    first, last = BURST, len(sends) * 9 // 10
    return (last - first) / (sends[last] - sends[first])


def most_in_window(sends: list[float]) -> int:
    ends = (bisect_left(sends, moment + WINDOW) for moment in sends)
    return max(end - begin for begin, end in enumerate(ends))
