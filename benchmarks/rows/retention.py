"""One purge of many old rows, beside rows that stay."""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.figures import Figure, by_rate, by_time

OLD, SINCE = "interval '91 days'", "interval '180 days'"
WANTED, MOST_SECONDS = 20_000, 1.0


def measure(bench: Bench) -> Iterator[Figure]:
    rows, rates, slowest = bench.pick(1_000_000, 20_000), [], []
    for _ in bench.rounds:
        with bench.scope():
            database = bench.database()
            database.fill_much(rows // 10)
            database.fill_much(rows, SINCE, OLD)
            agent = bench.agent(database)
            rates.append(rows / agent.call("purge"))
            slowest.append(agent.call("slowest_statement"))
    yield by_rate("purge: rows a second", median(rates), WANTED)
    yield by_time("purge: slowest statement", max(slowest), MOST_SECONDS)
