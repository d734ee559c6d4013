"""What each process has for itself: a forked one has none of its parent's threads."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

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
