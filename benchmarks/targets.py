"""The rows, and the bars of their figures. Figures, not promises: nothing fails."""

from collections.abc import Callable, Iterator

from .rows import (
    confirm,
    operators,
    pacing,
    publish,
    retention,
    start,
    start_full_tables,
    start_slow_provider,
    startup,
    support,
    worker,
)
from .support.bench import Bench
from .support.figures import Figure, Target

ROWS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "start": start.measure,
    "start-slow-provider": start_slow_provider.measure,
    "start-full-table": start_full_tables.measure_settled,
    "start-full-hour": start_full_tables.measure_hour,
    "start-busy": start_full_tables.measure_busy,
    "confirm": confirm.measure,
    "worker": worker.measure,
    "pacing": pacing.measure,
    "sweep": operators.measure_sweep,
    "outage": operators.measure_outage,
    "status": operators.measure_status,
    "purge": retention.measure,
    "support": support.measure,
    "publish": publish.measure,
    "startup": startup.measure,
}

TARGETS = {
    "start: CPU a request": Target("≥ 0.55", "0.65"),
    "start: requests a second": Target("≥ 0.50", "0.65"),
    "start, iDenfy at 0.3 s: median": Target("≤ 1.1"),
    "start, iDenfy at 30 s: median": Target("≤ 1.1"),
    "start, iDenfy at 0.3 s: 99 %": Target("≤ 1.5"),
    "start, iDenfy at 30 s: 99 %": Target("≤ 1.5"),
    "start, full table": Target("≤ 1.15"),
    "start, full hour": Target("≤ 1.15"),
    "start, busy network": Target("≤ 1.5"),
    "start, busy user": Target("≤ 1.5"),
    "confirm, right code: time alone": Target("≤ 1.8", "1.4"),
    "confirm, wrong code: time alone": Target("≤ 1.8", "1.4"),
    "worker at 0.3 s": Target("≥ 0.85", "0.95"),
    "worker at 0 s: sends a second": Target("≥ 0.60", "0.80"),
    "pacing: rate": Target("0.97 to 1.00"),
    "pacing: most in 10 s": Target("≤ 1.00"),
    "sweep": Target("≤ 1.2"),
    "10,000 rows after an outage": Target("≤ 1.00"),
    "status": Target("≤ 1.5"),
    "purge: rows a second": Target("≥ 1.00"),
    "purge: slowest statement": Target("≤ 1.00"),
    **dict.fromkeys(support.NAMES, Target("≤ 1.3")),
    "summary": Target("≤ 1.00"),
    "startup: CPU added by the app": Target("≤ 1.00"),
}
