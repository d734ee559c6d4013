"""Start, limits on, each request its own network, against one INSERT and ``.delay``."""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.figures import Figure, by_cost, by_rate
from ..support.requests import starts
from ..support.site import Load

PATHS = {"measured": "/phone/start/", "floor": "/floor/start/"}
CLIENTS = 8


def measure(bench: Bench) -> Iterator[Figure]:
    count, database = bench.pick(1000, 100), bench.database()
    webs = {way: bench.web(database) for way in PATHS}

    def load(count: int) -> dict[str, Load]:
        database.empty()
        return {
            way: web.load(starts(count, PATHS[way]), 202, CLIENTS)
            for way, web in webs.items()
        }

    load(20)
    yield from compare("start", [load(count) for _ in bench.rounds])


def compare(name: str, rounds: list[dict[str, Load]]) -> Iterator[Figure]:
    """CPU a request and requests a second; a ratio of 1 is as good as the floor."""
    ways = ("measured", "floor")
    cpu = [median(each[way].cpu_each for each in rounds) for way in ways]
    yield by_cost(f"{name}: CPU a request", *cpu)
    rate = [median(each[way].rate for each in rounds) for way in ways]
    yield by_rate(f"{name}: requests a second", *rate)
