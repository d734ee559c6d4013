"""Confirm, iDenfy at 0 s, against one pooled HTTP call and one UPDATE."""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.database import SENT, Database
from ..support.figures import Figure, by_time
from ..support.load import Post
from ..support.provider import RIGHT_CODE
from ..support.site import Load
from .start import CLIENTS, compare

CODES = {"right code": RIGHT_CODE, "wrong code": "0000"}


def requests(database: Database, count: int, code: str) -> dict[str, list[Post]]:
    """Over new rows, each of a user of its own, for the app and for the floor."""
    database.empty()
    ours = database.fill(count, SENT | {"user_id": "g"}, since="interval '9 seconds'")
    paths = {
        "measured": [f"/phone/{pk}/confirm/" for pk in ours],
        "floor": [f"/floor/{pk}/confirm/" for pk in database.fill_floor(count)],
    }
    return {
        way: [
            (path, {"X-User": str(user)}, {"code": code})
            for user, path in enumerate(paths[way], start=1)
        ]
        for way in paths
    }


def measure(bench: Bench) -> Iterator[Figure]:
    bench.provider.reset(0)
    database = bench.database()
    webs = {way: bench.web(database) for way in ("measured", "floor")}

    def load(count: int, code: str, clients: int) -> dict[str, Load]:
        posts = requests(database, count, code)
        return {way: web.load(posts[way], 200, clients) for way, web in webs.items()}

    for name, code in CODES.items():
        load(20, code, CLIENTS)
        alone, many = [], []
        for _ in bench.rounds:
            alone.append(load(bench.pick(200, 60), code, clients=1))
            many.append(load(bench.pick(800, 100), code, CLIENTS))
        times = [
            median(median(each[way].latencies) for each in alone)
            for way in ("measured", "floor")
        ]
        yield by_time(f"confirm, {name}: time alone", *times)
        yield from compare(f"confirm, {name}", many)
