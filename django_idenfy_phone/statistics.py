"""The operators' figures, read from the tallies: see ``tallies`` for what they count.

A period is a number of whole hours, of which the present one is the last.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

from django.db.models import Q, QuerySet, Sum
from django.utils import timezone

from .exceptions import NumberNotSupported
from .models import PhoneVerification, primary_alias
from .records import Tally
from .statuses import Failure
from .tallies import HOUR, hour_of

PERIODS = {
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
Name = Tally.Name
NOT_SUPPORTED = NumberNotSupported.code
# The newest rows that tell how long sending and verifying take.
SAMPLE = 1_000
# The name, the reason and the region of a tally, and its count.
Group = tuple[str, str, str, int]


class Region(NamedTuple):
    """The starts of one region, "" for numbers whose region is not known.

    ``not_supported`` are those of ``refused`` whose number codes are not sent to.
    """

    started: int
    refused: int
    not_supported: int
    sent: int
    verified: int

    @property
    def conversion(self) -> float | None:
        """How many of the sends were verified, from 0 to 1; None without a send."""
        return self.verified / self.sent if self.sent else None


class Figures(NamedTuple):
    """The starts of a period, and what became of them so far.

    ``refused`` and ``failed`` count by reason, most frequent first, ``regions`` holds
    each region, by its number of starts.
    """

    started: int
    sent: int
    verified: int
    expired: int
    locked: int
    refused: Counter[str]
    failed: Counter[str]
    regions: Mapping[str, Region]

    @property
    def possibly_billed(self) -> int:
        """The sends that iDenfy accepted, and those that may have reached it."""
        return self.sent + self.failed[Failure.UNKNOWN]


class Hour(NamedTuple):
    begin: datetime
    started: int
    refused: int
    sent: int
    verified: int
    failed: int


class Speed(NamedTuple):
    """How long a step took at so many rows; both times are None where none took it.

    95 % of the rows took no longer than ``slow``.
    """

    rows: int
    median: timedelta | None
    slow: timedelta | None


class Speeds(NamedTuple):
    """Of the newest ``rows``: from start to sent, and from sent to verified."""

    rows: int
    send: Speed
    verify: Speed


def figures(period: timedelta) -> Figures:
    """The figures of a period. One query."""
    return _figures(list(_sums(period, "name", "reason", "region")))


def all_figures() -> dict[str, Figures]:
    """The figures of each of PERIODS, by its name. One query."""
    tallies = Tally.objects.using(primary_alias()).order_by()
    tallies = tallies.filter(hour__gte=_begin(max(PERIODS.values())))
    sums = [
        Sum("count", filter=Q(hour__gte=_begin(period)), default=0)
        for period in PERIODS.values()
    ]
    named = {f"sum_{number}": each for number, each in enumerate(sums)}
    keys = ("name", "reason", "region")
    found = list(tallies.values_list(*keys).annotate(**named))
    return {
        period: _figures([(*row[:3], row[3 + n]) for row in found if row[3 + n]])
        for n, period in enumerate(PERIODS)
    }


def speeds() -> Speeds:
    """How long the newest SAMPLE rows took. One query."""
    newest = PhoneVerification.objects.order_by("-created_at")
    rows = list(newest.values_list("created_at", "sent_at", "verified_at")[:SAMPLE])
    return Speeds(
        rows=len(rows),
        send=_speed(sent - start for start, sent, _verified in rows if sent),
        verify=_speed(end - sent for _start, sent, end in rows if sent and end),
    )


def _speed(lengths: Iterable[timedelta]) -> Speed:
    found = sorted(lengths)
    return Speed(len(found), _part(found, 0.5), _part(found, 0.95))


def _part(lengths: list[timedelta], part: float) -> timedelta | None:
    """The shortest one that this part of the sorted lengths does not exceed."""
    return lengths[ceil(part * len(lengths)) - 1] if lengths else None


def _figures(groups: list[Group]) -> Figures:
    names: Counter[str] = Counter()
    for name, _reason, _region, count in groups:
        names[name] += count
    return Figures(
        started=names[Name.STARTED],
        sent=names[Name.SENT],
        verified=names[Name.VERIFIED],
        expired=names[Name.EXPIRED],
        locked=names[Name.LOCKED],
        refused=_by_reason(groups, Name.REFUSED),
        failed=_by_reason(groups, Name.FAILED),
        regions=_by_region(groups),
    )


def by_hour(period: timedelta) -> list[Hour]:
    """Each hour of a period, oldest first. One query."""
    counts = {
        (hour, name): count for hour, name, count in _sums(period, "hour", "name")
    }
    names = (Name.STARTED, Name.REFUSED, Name.SENT, Name.VERIFIED, Name.FAILED)
    begin = _begin(period)
    hours = [begin + n * HOUR for n in range(period // HOUR)]
    return [
        Hour(hour, *(counts.get((hour, name.value), 0) for name in names))
        for hour in hours
    ]


def _begin(period: timedelta) -> datetime:
    return hour_of(timezone.now()) + HOUR - period


def _sums(period: timedelta, *keys: str) -> QuerySet[Tally, Any]:
    """Tuples of the keys and the sum of their counts."""
    tallies = Tally.objects.using(primary_alias()).filter(hour__gte=_begin(period))
    return tallies.order_by().values_list(*keys).annotate(Sum("count"))


def _by_reason(groups: Iterable[Group], name: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for each, reason, _region, count in groups:
        if each == name:
            counts[reason] += count
    return Counter(dict(counts.most_common()))


def _by_region(groups: Iterable[Group]) -> dict[str, Region]:
    counts: Counter[tuple[str, str]] = Counter()
    for name, reason, region, count in groups:
        counts[region, name] += count
        if reason == NOT_SUPPORTED:
            counts[region, reason] += count
    names = (Name.STARTED, Name.REFUSED, NOT_SUPPORTED, Name.SENT, Name.VERIFIED)
    regions = {
        region: Region(*(counts[region, name] for name in names))
        for region in sorted({region for region, _name in counts})
    }
    return dict(sorted(regions.items(), key=lambda item: -item[1].started))
