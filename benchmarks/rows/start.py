"""Start, limits on, each request its own network, against one INSERT and ``.delay``."""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench, Load
from ..support.figures import Figure, by_cost, by_rate
from ..support.requests import starts

PATHS = {"measured": "/phone/start/", "floor": "/floor/start/"}
CLIENTS = 8


def measure(bench: Bench) -> Iterator[Figure]:
    count, database = bench.pick(1000, 100), bench.database()
    webs = {way: bench.web(database) for way in PATHS}
    loads: dict[str, list[Load]] = {way: [] for way in PATHS}
    for way, web in webs.items():
        web.load(starts(20, PATHS[way]), 202, CLIENTS)
    for _ in bench.rounds:
        for way, web in webs.items():
            database.empty()
            loads[way].append(web.load(starts(count, PATHS[way]), 202, CLIENTS))
    bench.redis.empty()
    yield from compare("start", loads)


def compare(name: str, loads: dict[str, list[Load]]) -> Iterator[Figure]:
    """CPU a request and requests a second; a ratio of 1 is as good as the floor."""
    cpu = {way: median(each.cpu_each for each in loads[way]) for way in loads}
    rate = {way: median(each.rate for each in loads[way]) for way in loads}
    yield by_cost(f"{name}: CPU a request", cpu["measured"], cpu["floor"])
    yield by_rate(f"{name}: requests a second", rate["measured"], rate["floor"])
