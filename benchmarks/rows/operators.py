"""The sweep and the status command with many rows, against themselves with few."""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.database import QUEUED, SENT
from ..support.figures import Figure, by_time

OPEN = 100
NOTIFY_SECONDS = 10


def measure_sweep(bench: Bench) -> Iterator[Figure]:
    yield from measure_call(bench, "sweep", bench.pick(1_000_000, 20_000), 1_000)


def measure_status(bench: Bench) -> Iterator[Figure]:
    yield from measure_call(bench, "status", bench.pick(3_000_000, 30_000), 3_000)


def measure_call(bench: Bench, name: str, many: int, few: int) -> Iterator[Figure]:
    """With 100 open rows of which none is due, beside the settled ones."""
    agents = {}
    for rows in (many, few):
        database = bench.database()
        database.fill_much(rows)
        database.fill(OPEN, SENT, since="interval '1 minute'")
        agents[rows] = bench.agent(database)
        agents[rows].call(name)
    times: dict[int, list[float]] = {rows: [] for rows in agents}
    for _ in range(bench.pick(50, 10)):
        for rows, agent in agents.items():
            times[rows].append(agent.call(name))
    yield by_time(name, median(times[many]), median(times[few]))


def measure_outage(bench: Bench) -> Iterator[Figure]:
    """One sweep, after which every queued row has its message."""
    rows, seconds = bench.pick(10_000, 1_000), []
    for _ in bench.rounds:
        with bench.scope():
            database = bench.database()
            database.fill(rows, QUEUED, since="interval '30 seconds'")
            bench.redis.empty()
            took = bench.agent(database).call("sweep")
            # A sweep stops when its time is over: as if it had gone on.
            seconds.append(took * rows / bench.redis.waiting())
    allowed = NOTIFY_SECONDS * rows / 10_000
    name = "10,000 rows after an outage"
    yield Figure(
        name, f"{median(seconds):.1f} s", f"{allowed:.1f} s", median(seconds) / allowed
    )
