"""What each process has for itself: a forked one has none of its parent's threads."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from django.utils import timezone

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One object for each process, made at its first use.

    Not at import, which may come before gevent replaces the locks of ``threading``.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        pid = os.getpid()
        if pid not in self._made:
            self._made.setdefault(pid, self._make())
        return self._made[pid]

    def reset(self) -> None:
        """Forget what was made."""
        self._made.clear()


class AtMostEvery:
    """Something that each process does at most once in ``interval``."""

    def __init__(self, interval: timedelta) -> None:
        self._seconds = interval.total_seconds()
        self._last: float | None = None

    def is_due(self) -> bool:
        """Whether to do it now: then not again before the interval has passed."""
        now = timezone.now().timestamp()
        # The clock may have been set back.
        if self._last is not None and abs(now - self._last) < self._seconds:
            return False
        self._last = now
        return True

    def reset(self) -> None:
        """Make it due."""
        self._last = None
