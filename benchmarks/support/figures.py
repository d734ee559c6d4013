"""Figures, and how they are shown."""

from collections.abc import Iterable
from typing import NamedTuple


class Figure(NamedTuple):
    """``ratio`` is what the bar of this name is about."""

    name: str
    measured: str
    against: str
    ratio: float


class Target(NamedTuple):
    """A bar, and what we aim at, as texts; "" for none."""

    bar: str
    aim: str = ""


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def by_time(name: str, measured: float, floor: float) -> Figure:
    """Of seconds: the ratio is measured / floor, and less is better."""
    return Figure(name, milliseconds(measured), milliseconds(floor), measured / floor)


def by_cost(name: str, measured: float, floor: float) -> Figure:
    """Of seconds: the ratio is floor / measured, and 1 is as good as the floor."""
    return Figure(name, milliseconds(measured), milliseconds(floor), floor / measured)


def by_rate(name: str, measured: float, floor: float) -> Figure:
    """Of events a second: the ratio is measured / floor, and more is better."""
    return Figure(name, f"{measured:.1f}/s", f"{floor:.1f}/s", measured / floor)


HEAD = ("figure", "measured", "against", "ratio", "bar", "aim")


def as_table(lines: Iterable[Iterable[str]]) -> str:
    """A simple table of reStructuredText."""
    rows = [HEAD, *(tuple(line) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    # An empty first cell would continue the row before; an empty other one is fine.
    texts = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    head, *body = (text.rstrip() for text in texts)
    return "\n".join([rule, head, rule, *body, rule])
