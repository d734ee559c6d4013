"""The filters of the log. Their choices come from settings, never from the table."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, time, timedelta
from typing import Any

import phonenumbers
from django.conf import settings
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _

from ..conf import conf
from ..exceptions import UnknownUser
from ..models import PhoneVerification
from ..querysets import PhoneVerificationQuerySet as Rows
from ..starting import user_id_of
from . import words

# The list reads no more rows than this of a period, whatever it is filtered by.
MOST_ROWS = 10_000
# The purposes of so many of the newest rows are offered.
ROWS_FOR_PURPOSES = 1_000

# The parameter that goes on from where a list ended.
UNTIL = "until"

Choices = list[tuple[str, Any]]


class PeriodFilter(SimpleListFilter):
    """The rows of a period, and of them the newest MOST_ROWS.

    A rare status would else be looked for in millions of rows. ``looked_back_to`` is
    how far the rows go back where the period has more; UNTIL goes on from there. A
    search, and the rows of one user, are few: all of them are read, of any time unless
    a period is chosen.
    """

    title = _("period")
    parameter_name = "period"
    DAYS = {"7d": 7, "30d": 30}

    def __init__(
        self,
        request: HttpRequest,
        params: dict[str, Any],
        model: type[PhoneVerification],
        model_admin: Any,
    ) -> None:
        terms = (
            request.GET.get(SEARCH_VAR),
            request.GET.get(UserFilter.parameter_name),
        )
        self.is_narrow = any(term and term.strip() for term in terms)
        self.until = params.pop(UNTIL, [None])[-1]
        self.looked_back_to: datetime | None = None
        super().__init__(request, params, model, model_admin)

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return [
            ("today", _("Today")),
            ("7d", _("Past 7 days")),
            ("30d", _("Past 30 days")),
            ("all", _("Any time")),
        ]

    def value(self) -> str:
        return super().value() or ("all" if self.is_narrow else "today")

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for value, title in self.lookup_choices:
            chosen = {str(self.parameter_name): value}
            yield {
                "selected": self.value() == value,
                "query_string": changelist.get_query_string(chosen, [UNTIL]),
                "display": title,
            }

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name, UNTIL]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:  # type: ignore[override]
        rows = queryset.filter(**self._bounds())
        if self.is_narrow:
            return rows
        times = rows.order_by("-created_at").values_list("created_at", flat=True)
        self.looked_back_to = next(iter(times[MOST_ROWS : MOST_ROWS + 1]), None)
        if self.looked_back_to is None:
            return rows
        return rows.filter(created_at__gte=self.looked_back_to)

    def _bounds(self) -> dict[str, datetime]:
        if self.value() not in dict(self.lookup_choices):
            raise IncorrectLookupParameters
        bounds, now = {}, words.local(timezone.now())
        if self.value() == "today":
            bounds["created_at__gte"] = datetime.combine(now, time.min, now.tzinfo)
        elif days := self.DAYS.get(self.value()):
            bounds["created_at__gte"] = now - timedelta(days=days)
        if self.until is not None:
            bounds["created_at__lte"] = _read_moment(self.until)
        return bounds


def _read_moment(text: str) -> datetime:
    """Raises IncorrectLookupParameters."""
    with suppress(ValueError):
        at = parse_datetime(text)
        if at and 1970 < at.year < 9999 and timezone.is_aware(at) == settings.USE_TZ:
            return at
    raise IncorrectLookupParameters


class ValueFilter(SimpleListFilter):
    """Rows in which the field ``parameter_name`` has exactly the chosen value."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        chosen = self.value()
        offered = {*self.offered(), *([] if chosen is None else [chosen])}
        return [(value, value or _("(none)")) for value in sorted(offered)]

    def offered(self) -> Iterable[str]:
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:  # type: ignore[override]
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(**{str(self.parameter_name): value})


class RegionFilter(ValueFilter):
    title = _("region")
    parameter_name = "region"

    def offered(self) -> Iterable[str]:
        regions: Iterable[str] = phonenumbers.SUPPORTED_REGIONS
        return regions if conf.REGIONS is None else conf.REGIONS


class PurposeFilter(ValueFilter):
    """Purposes stand in the URLs of the host, so the newest rows tell them."""

    title = _("purpose")
    parameter_name = "purpose"

    def offered(self) -> Iterable[str]:
        newest = PhoneVerification.objects.order_by("-created_at")
        return newest.values_list("purpose", flat=True)[:ROWS_FOR_PURPOSES]


class UserFilter(SimpleListFilter):
    """The rows of one user: offered only where a link has chosen one."""

    title = _("user")
    parameter_name = "user"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        value = self.value()
        # The name may be a number: the rows show it masked.
        return [] if value is None else [(value, _("The chosen one"))]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:  # type: ignore[override]
        try:
            user_id = user_id_of(get_user_model()(pk=self.value()))
        except UnknownUser:
            raise IncorrectLookupParameters from None
        return queryset.filter(user=user_id)
