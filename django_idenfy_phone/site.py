"""The site's limit: a fuse over all starts, counted in slices of ten seconds.

Each process keeps the counts of closed slices, in which no row changes any more, and
counts the open ones again at most once a second. So no start reads a whole window. It
may let pass what other processes start within that second, and never refuses too early.
"""

import threading
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connections
from django.db.models import Count, Q
from django.db.models.expressions import RawSQL
from django.utils import timezone

from .conf import Limit, conf
from .models import PhoneVerification, primary_alias
from .pacing import MAX_CLOCK_SKEW
from .processes import PerProcess
from .querysets import PhoneVerificationQuerySet
from .statuses import Status
from .transitions import SEND_LEASE

SLICE_SECONDS = 10
SLICE = timedelta(seconds=SLICE_SECONDS)
COUNT_LIFETIME = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Which slice a row belongs to: how many whole ones lie between EPOCH and it.
SLICE_OF_ROW = {
    "postgresql": f"floor(extract(epoch FROM created_at) / {SLICE_SECONDS})",
    "mysql": f"timestampdiff(SECOND, '1970-01-01', created_at) DIV {SLICE_SECONDS}",
    "sqlite": f"CAST(strftime('%%s', created_at) AS integer) / {SLICE_SECONDS}",
}


class _Counted(NamedTuple):
    """The counted rows until ``at``, by slice, from the slice ``oldest`` on.

    Those before the slice ``first_open`` do not change any more.
    """

    at: datetime
    slices: Counter[int]
    oldest: int
    first_open: int


NOTHING = _Counted(EPOCH, Counter(), 0, 0)


class SiteCounter:
    """How many rows the limits of the site count. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Replaced as a whole: a thread that reads it once sees no half of a count.
        self._counted = NOTHING
        # When the starts of this process were created: some may be counted already.
        self._own: list[datetime] = []

    def add(self, created_at: datetime) -> None:
        """Count a start of this process at once."""
        self._own.append(created_at)

    def nth_newest(self, limit: Limit, now: datetime) -> datetime | None:
        """As the function of this name, from the last count."""
        # In this order: a start that another thread counts meanwhile is in one of them.
        own, counted = self._own[:], self._counted
        own = sorted(each for each in own if each > counted.at)
        if limit.sends > counted.slices.total() + len(own):
            return None
        if limit.sends <= len(own):
            return own[-limit.sends]
        return _nth_counted(counted, limit.sends - len(own), now - limit.window, now)

    def recount(self, now: datetime) -> None:
        """Count the open slices, unless they were counted within COUNT_LIFETIME."""
        if self._is_fresh(now):
            return
        # Others go on with the last count meanwhile, but for the first one.
        if self._lock.acquire(blocking=self._counted is NOTHING):
            try:
                if not self._is_fresh(now):
                    self._counted = _count(self._counted, now)
                    # In place: another thread may be adding one.
                    while self._own and self._own[0] <= now:
                        self._own.pop(0)
            finally:
                self._lock.release()

    def _is_fresh(self, now: datetime) -> bool:
        # Another thread may have counted a moment later than this one's now.
        return abs(now - self._counted.at) < COUNT_LIFETIME


def _count(last: _Counted, now: datetime) -> _Counted:
    oldest = min(_slice_of(now - each.window) for each in conf.limits_of("site"))
    # After a change of the limits or of the clock, all is counted anew.
    is_known = last.oldest <= oldest and last.at <= now
    since = max(last.first_open, oldest) if is_known else oldest
    kept = {each: n for each, n in last.slices.items() if oldest <= each < since}
    begin = EPOCH + since * SLICE
    rows = _rows(now).filter(created_at__gte=begin, created_at__lte=now).order_by()
    number = RawSQL(SLICE_OF_ROW[connections[primary_alias()].vendor], ())
    found = rows.values_list(number).annotate(Count("pk"))
    slices = Counter(kept | {int(each): count for each, count in found})
    longest_open = conf.SEND_DEADLINE + SEND_LEASE + MAX_CLOCK_SKEW
    return _Counted(now, slices, oldest, _slice_of(now - longest_open))


def _nth_counted(
    counted: _Counted, n: int, since: datetime, now: datetime
) -> datetime | None:
    """When the n-th newest counted row was created, if after ``since``."""
    slices, oldest = counted.slices, _slice_of(since)
    if sum(slices[each] for each in slices if each >= oldest) < n:
        return None
    for number in sorted(slices, reverse=True):
        if n <= slices[number]:
            break
        n -= slices[number]
    begin = EPOCH + number * SLICE
    rows = _rows(now).filter(created_at__gte=begin, created_at__lt=begin + SLICE)
    rows = rows.filter(created_at__gt=since, created_at__lte=counted.at)
    return _nth_created(rows, n)


def _slice_of(moment: datetime) -> int:
    return (moment - EPOCH) // SLICE


def _rows(now: datetime) -> PhoneVerificationQuerySet:
    """Counted rows, without the late ones, which soon count no longer."""
    late = Q(status=Status.QUEUED, send_by__lte=now)
    return PhoneVerification.objects.counted().exclude(late)


def _nth_created(rows: PhoneVerificationQuerySet, n: int) -> datetime | None:
    """When the n-th newest of these rows was created; None where there are fewer."""
    times = rows.order_by("-created_at").values_list("created_at", flat=True)
    return times[n - 1 : n].first()


_counters: PerProcess[defaultdict[str, SiteCounter]] = PerProcess(
    partial(defaultdict, SiteCounter)
)


def _counter() -> SiteCounter:
    """That of the database: a host's router may choose it by tenant."""
    return _counters.get()[primary_alias()]


def recount() -> None:
    """Count the open slices again, unless this process did so within COUNT_LIFETIME."""
    if _keeps_counts():
        _counter().recount(timezone.now())


def add(created_at: datetime) -> None:
    """Count a start of this process, which was just committed."""
    if _keeps_counts():
        _counter().add(created_at)


def nth_newest(limit: Limit, now: datetime) -> datetime | None:
    """When the n-th newest row of the window was created, for a limit of n.

    None where there are fewer: the limit is not reached. As ``recount`` counted last.
    """
    if _keeps_counts():
        return _counter().nth_newest(limit, now)
    in_window = _rows(now).filter(created_at__gt=now - limit.window)
    return _nth_created(in_window, limit.sends)


def _keeps_counts() -> bool:
    """Not inside TestCase, whose rows vanish, nor where local times are stored."""
    blocks: list[Any] = connections[primary_alias()].atomic_blocks
    is_in_testcase = bool(blocks) and blocks[0]._from_testcase
    return settings.USE_TZ and not is_in_testcase


def forget() -> None:
    """Forget all counts, where rows vanished: between two tests."""
    _counters.reset()
