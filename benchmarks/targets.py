"""The rows, and the bars of their figures. Figures, not promises: nothing fails."""

from collections.abc import Callable, Iterator

from .rows import confirm, start, worker
from .support.bench import Bench
from .support.figures import Figure, Target

ROWS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "start": start.measure,
    "confirm": confirm.measure,
    "worker": worker.measure,
}

TARGETS = {
    "start: CPU a request": Target("≥ 0.55", "0.65"),
    "start: requests a second": Target("≥ 0.50", "0.65"),
    "confirm, right code: time alone": Target("≤ 1.8", "1.4"),
    "confirm, wrong code: time alone": Target("≤ 1.8", "1.4"),
    "worker at 0.3 s": Target("≥ 0.85", "0.95"),
    "worker at 0 s: sends a second": Target("≥ 0.60", "0.80"),
}
