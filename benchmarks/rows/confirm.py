"""Confirm, iDenfy at 0 s, against one pooled HTTP call and one UPDATE."""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench, Load
from ..support.database import SENT, Database
from ..support.figures import Figure, by_time
from ..support.load import Post
from ..support.provider import RIGHT_CODE
from .start import CLIENTS, compare

CODES = {"right code": RIGHT_CODE, "wrong code": "0000"}


def requests(database: Database, count: int, code: str) -> dict[str, list[Post]]:
    """Over new rows, for the app and for the floor."""
    database.empty()
    ours = database.fill(count, SENT | {"user_id": "1"}, since="interval '9 seconds'")
    paths = {
        "measured": [f"/phone/{pk}/confirm/" for pk in ours],
        "floor": [f"/floor/{pk}/confirm/" for pk in database.fill_floor(count)],
    }
    headers, body = {"X-User": "1"}, {"code": code}
    return {way: [(path, headers, body) for path in paths[way]] for way in paths}


def measure(bench: Bench) -> Iterator[Figure]:
    bench.provider.ask("/reset", {"delay": 0})
    database = bench.database()
    webs = {way: bench.web(database) for way in ("measured", "floor")}
    for name, code in CODES.items():
        alone: dict[str, list[Load]] = {way: [] for way in webs}
        many: dict[str, list[Load]] = {way: [] for way in webs}
        for way, posts in requests(database, 20, code).items():
            webs[way].load(posts, 200, CLIENTS)
        for _ in bench.rounds:
            for way, posts in requests(database, bench.pick(200, 60), code).items():
                alone[way].append(webs[way].load(posts, 200, clients=1))
            for way, posts in requests(database, bench.pick(800, 100), code).items():
                many[way].append(webs[way].load(posts, 200, CLIENTS))
        latency = {
            way: median(median(each.latencies) for each in alone[way]) for way in webs
        }
        yield by_time(
            f"confirm, {name}: time alone", latency["measured"], latency["floor"]
        )
        yield from compare(f"confirm, {name}", many)
