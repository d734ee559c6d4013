"""One publish to a healthy broker, against a plain ``.delay``."""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.figures import Figure, by_time


def measure(bench: Bench) -> Iterator[Figure]:
    agent = bench.agent(bench.database())
    times: dict[str, list[float]] = {"notify": [], "delay": []}
    for _ in range(bench.pick(2000, 200)):
        for name, each in times.items():
            each.append(agent.call(name))
    yield by_time("publish", median(times["notify"]), median(times["delay"]))
