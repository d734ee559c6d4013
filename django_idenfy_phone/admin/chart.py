"""A line chart of counts over time, as coordinates that a template puts into an SVG."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _

from ..statistics import Hour
from .words import local

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 680, 40, 232
# At most so many times are written below the lines.
MOST_TIMES = 6
LEGEND_STEP = 150
HOURS_OF_DAY = 24


class Counts(NamedTuple):
    """What happened in an hour, or in a day of the current time zone."""

    label: str
    started: int
    sent: int
    verified: int


class Series(NamedTuple):
    """A line, and where its name stands. ``name`` is a part of its CSS class."""

    name: str
    label: str
    points: str
    legend_at: int


class Mark(NamedTuple):
    """A text beside an axis, and where it stands."""

    at: str
    label: str


class Chart(NamedTuple):
    """All fractions are texts: a template would write them in the user's language."""

    series: list[Series]
    levels: list[Mark]
    times: list[Mark]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    bottom: int = BOTTOM


def counts(hours: Sequence[Hour]) -> list[Counts]:
    """By the hour, or by the day where there is more than one of them."""
    if len(hours) <= HOURS_OF_DAY:
        return [_sum(hour, "H:i", [hour]) for hour in hours]
    days = groupby(hours, lambda hour: local(hour.begin).date())
    groups = [list(group) for _day, group in days]
    return [_sum(group[0], "Y-m-d", group) for group in groups]


def _sum(first: Hour, form: str, hours: list[Hour]) -> Counts:
    return Counts(
        label=date_format(local(first.begin), form),
        started=sum(each.started for each in hours),
        sent=sum(each.sent for each in hours),
        verified=sum(each.verified for each in hours),
    )


def chart(rows: Sequence[Counts]) -> Chart:
    """The chart of two rows or more."""
    top = _round_up(max(max(row[1:]) for row in rows))
    xs = [LEFT + n * (RIGHT - LEFT) / (len(rows) - 1) for n in range(len(rows))]
    # From the last one back, so that the newest time is named.
    step = -(-len(rows) // MOST_TIMES)
    named = range(len(rows) - 1, -1, -step)
    return Chart(
        series=_series(rows, xs, top),
        levels=[
            Mark(_y(level, top), number_format(level, force_grouping=True))
            for level in (0, top // 2, top)
        ],
        times=[Mark(f"{xs[n]:.1f}", rows[n].label) for n in reversed(named)],
    )


def _series(rows: Sequence[Any], xs: Sequence[float], top: int) -> list[Series]:
    labels = {"started": _("Started"), "sent": _("Sent"), "verified": _("Verified")}
    return [
        Series(
            name,
            label,
            " ".join(
                f"{x:.1f},{_y(getattr(row, name), top)}"
                for x, row in zip(xs, rows, strict=True)
            ),
            LEFT + n * LEGEND_STEP,
        )
        for n, (name, label) in enumerate(labels.items())
    ]


def _y(value: int, top: int) -> str:
    return f"{BOTTOM - (BOTTOM - TOP) * value / top:.1f}"


def _round_up(most: int) -> int:
    """To 2, 4, 10, 20, 40, 100, and so on. The middle line shows the half of it."""
    power = int(10 ** (len(str(most)) - 1))
    return next(n * power for n in (1, 2, 4, 10) if max(most, 2) <= n * power)
