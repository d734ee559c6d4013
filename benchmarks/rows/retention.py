"""One purge of many old rows, beside rows that stay."""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.figures import Figure, by_rate

OLD, SINCE = "interval '91 days'", "interval '180 days'"
WANTED = 20_000


def measure(bench: Bench) -> Iterator[Figure]:
    rows, rates = bench.pick(1_000_000, 20_000), []
    for _ in bench.rounds:
        with bench.scope():
            database = bench.database()
            database.fill_much(rows // 10)
            database.fill_much(rows, SINCE, OLD)
            rates.append(rows / bench.agent(database).call("purge"))
    yield by_rate("purge: rows a second", median(rates), WANTED)
