"""Start's median with many rows, against itself with none.

One client, so that each start is timed alone.
"""

from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.database import CALLERS, COLUMNS, FULL_SPAN, NOW, VERIFICATIONS
from ..support.figures import Figure, by_time
from ..support.load import Post
from ..support.requests import starts
from ..support.site import Web

HOUR = "interval '1 hour'"
RECENT = "interval '59 minutes'"

# The last caller and a network of its own: 1,900 rows each, scattered in the table.
BUSY_USER, BUSY_NETWORK = CALLERS, "11.1.0.1"
ROWS, EACH = 100_700, 53
BUSY = {
    "created_at": f"""CASE WHEN g % {EACH} < 2
        THEN now() - {RECENT} * (1 - g / {ROWS}.0) ELSE made - {HOUR} END""",
    "network": f"CASE WHEN g % {EACH} = 0 THEN '{BUSY_NETWORK}' ELSE '12.0.0.1' END",
    "user_id": f"""CASE WHEN g % {EACH} = 1
        THEN {BUSY_USER} ELSE {COLUMNS["user_id"]} END""",
}
LIMITS = {"user": ["2000/h"], "network": ["2000/h"], "site": ["200000/h"]}
# How the callers of each kind differ from others.
CALLERS_OF: dict[str, dict[str, str]] = {
    "empty": {},
    "network": {"X-Forwarded-For": BUSY_NETWORK},
    "user": {"X-User": str(BUSY_USER)},
}


def time_alone(web: Web, requests: list[Post]) -> float:
    return median(web.load(requests, 202, clients=1).latencies)


def measure_settled(bench: Bench) -> Iterator[Figure]:
    rows = bench.pick(5_000_000, 20_000)
    yield from measure_filled(bench, rows, FULL_SPAN, HOUR, "start, full table")


def measure_hour(bench: Bench) -> Iterator[Figure]:
    rows = bench.pick(100_000, 5_000)
    yield from measure_filled(bench, rows, RECENT, NOW, "start, full hour")


def measure_filled(
    bench: Bench, rows: int, since: str, until: str, name: str
) -> Iterator[Figure]:
    databases = {"empty": bench.database(), "full": bench.database()}
    databases["full"].fill_much(rows, since, until)
    webs = {way: bench.web(each) for way, each in databases.items()}
    times: dict[str, list[float]] = {way: [] for way in webs}
    count = bench.pick(200, 40)
    for i, _ in enumerate([None, *bench.rounds]):
        for way, web in webs.items():
            times[way].append(time_alone(web, starts(count, first=i * count)))
    # The first round only warmed up.
    full, empty = (median(times[way][1:]) for way in ("full", "empty"))
    yield by_time(name, full, empty)


def measure_busy(bench: Bench) -> Iterator[Figure]:
    database = bench.database()
    database.fill(ROWS, BUSY)
    database.age()
    web = bench.web(database, IDENFY_PHONE_SEND_LIMITS=LIMITS)
    times: dict[str, list[float]] = {way: [] for way in CALLERS_OF}
    count = bench.pick(90, 30)
    time_alone(web, starts(count))
    for _ in bench.rounds:
        for way, headers in CALLERS_OF.items():
            database.execute(f"DELETE FROM {VERIFICATIONS} WHERE region = 'LT'")
            times[way].append(time_alone(web, starts(count, headers=headers)))
    empty = median(times["empty"])
    for way in ("network", "user"):
        yield by_time(f"start, busy {way}", median(times[way]), empty)
