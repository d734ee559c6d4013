"""The page of the operators' figures: what happened, and how sending goes now."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import brake, statistics, tallies
from ..health import Health, Trouble, health
from ..heartbeats import DELIVERY, SWEEP
from ..statistics import NOT_SUPPORTED, PERIODS, Figures, Region, Speed, Speeds
from ..statuses import Failure
from . import words
from .banners import banners
from .chart import Counts, chart, counts

TEMPLATE = "admin/django_idenfy_phone/phoneverification/summary.html"
TITLES = {
    "24h": gettext_lazy("24 hours"),
    "7d": gettext_lazy("7 days"),
    "30d": gettext_lazy("30 days"),
}
# Each is a count of Figures.
OUTCOMES = {
    "started": gettext_lazy("Started"),
    "sent": gettext_lazy("Sent"),
    "verified": gettext_lazy("Verified"),
    "expired": gettext_lazy("Expired"),
    "locked": gettext_lazy("Locked"),
    "possibly_billed": gettext_lazy("Possibly billed: sent, or it may have been sent"),
}
FAILURES = {each.value: each.label for each in Failure}
REFUSALS = {
    NOT_SUPPORTED: gettext_lazy("number not supported"),
    "cooldown": gettext_lazy("cooldown of the number"),
    "number": gettext_lazy("limit of the number"),
    "user": gettext_lazy("limit of the user"),
    "network": gettext_lazy("limit of the network"),
    "block": gettext_lazy("limit of the block of numbers"),
    "site": gettext_lazy("limit of the site"),
    brake.BRAKE: gettext_lazy("brake of the region"),
    tallies.UNAVAILABLE: gettext_lazy("iDenfy cannot be asked"),
    tallies.GUARD: gettext_lazy("START_GUARD raised an error"),
}
HEARTBEATS = {
    SWEEP: gettext_lazy("Last sweep"),
    DELIVERY: gettext_lazy("Last delivery"),
}


class Line(NamedTuple):
    """A row of a table; ``is_part`` where it is a part of the row above."""

    title: object
    cells: list[str]
    is_part: bool = False


class Fact(NamedTuple):
    """How something is now."""

    title: object
    text: str


class SummaryPage(admin.ModelAdmin):  # type: ignore[type-arg]
    """Adds the page to an admin of verifications, for whoever may view those."""

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_summary"
        view = self.admin_site.admin_view(self.summary_view)
        return [path("summary/", view, name=name), *super().get_urls()]

    def summary_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = request.GET.get("period", "")
        context = self.admin_site.each_context(request) | {
            "title": _("Summary"),
            "opts": self.opts,
        }
        context |= summary(asked if asked in PERIODS else "24h")
        return TemplateResponse(request, TEMPLATE, context)


def summary(period: str) -> dict[str, Any]:
    """What the page shows. The period is that of the regions and of the chart."""
    figures, found = statistics.all_figures(), health()
    shown: dict[str, Any] = {
        "period": TITLES[period],
        "periods": [(name, title, name == period) for name, title in TITLES.items()],
        # The brakes have a table.
        "warnings": list(banners(found, but=Trouble.BRAKE)),
        "facts": list(facts(found)),
        "brakes": brake.of_last_day(),
        "is_engaged": Trouble.BRAKE in found.troubles,
        "is_enforced": brake.is_enforced(),
        "speeds": statistics.speeds(),
    }
    shown["speed_lines"] = speed_lines(shown["speeds"])
    if any(each.regions for each in figures.values()):
        rows = counts(statistics.by_hour(PERIODS[period]))
        shown["outcomes"] = list(outcomes(list(figures.values())))
        shown["regions"] = region_lines(figures[period].regions)
        shown["chart"], shown["counts"] = chart(rows), count_lines(rows)
        shown["is_by_day"] = period != "24h"
    return shown


def outcomes(periods: Sequence[Figures]) -> Iterator[Line]:
    """What became of the starts, with a cell for each period, the longest last."""
    for name, title in OUTCOMES.items():
        yield Line(title, _written(getattr(each, name) for each in periods))
    yield from _parts(_("Failed"), [each.failed for each in periods], FAILURES)
    yield from _parts(_("Refused"), [each.refused for each in periods], REFUSALS)


def _parts(
    title: str, counters: Sequence[Counter[str]], titles: Mapping[str, object]
) -> Iterator[Line]:
    yield Line(title, _written(each.total() for each in counters))
    for reason in counters[-1]:
        cells = _written(each[reason] for each in counters)
        yield Line(titles.get(reason, reason), cells, is_part=True)


def _written(numbers: Any) -> list[str]:
    return [number_format(each, force_grouping=True) for each in numbers]


def region_lines(regions: Mapping[str, Region]) -> list[Line]:
    return [
        Line(name or words.NOTHING, [*_written(region), percent(region.conversion)])
        for name, region in regions.items()
    ]


def percent(part: float | None) -> str:
    return words.NOTHING if part is None else f"{part:.0%}"


def count_lines(rows: Sequence[Counts]) -> list[Line]:
    return [Line(row.label, _written(row[1:])) for row in rows]


def speed_lines(speeds: Speeds) -> list[Line]:
    return [
        _speed_line(_("From start to sent"), speeds.send),
        _speed_line(_("From sent to verified"), speeds.verify),
    ]


def _speed_line(title: str, speed: Speed) -> Line:
    times = [_time(speed.median), _time(speed.slow)]
    return Line(title, [*_written([speed.rows]), *times])


def _time(length: timedelta | None) -> str:
    return words.NOTHING if length is None else words.duration(length)


def facts(found: Health) -> Iterator[Fact]:
    """How the queue, the gate, the sweep and the delivery are."""
    yield Fact(_("Queued rows"), *_written([found.queued]))
    yield Fact(_("Oldest queued row"), _ago(found.oldest_queued, _("none")))
    yield Fact(_("Next slot for a send"), _left(found.next_slot_in, _("now")))
    for pause, left in found.pauses.items():
        yield Fact(pause.label, _left(left, _("no")))
    for name, title in HEARTBEATS.items():
        yield Fact(title, _ago(found.heartbeats.get(name), _("never")))


def _ago(age: timedelta | None, otherwise: str) -> str:
    return otherwise if age is None else _("%s ago") % words.duration(age)


def _left(left: timedelta, otherwise: str) -> str:
    return _("for another %s") % words.duration(left) if left else otherwise
