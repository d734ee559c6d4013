"""The list of the log, which reads few rows however many there are."""

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from . import filters, words

if TYPE_CHECKING:
    _Base = ChangeList
else:
    _Base = object


class AtLeast(int):
    """A count that is shown as "10,000+"."""

    def __str__(self) -> str:
        # Django would put its separators between these characters.
        return f"{self:d}" if settings.USE_THOUSAND_SEPARATOR else f"{self:,d}+"


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts at most MOST_ROWS rows and one more, and has no page beyond them."""

    object_list: QuerySet[Any]

    @cached_property
    def count(self) -> int:
        counted = self.object_list.order_by()[: filters.MOST_ROWS + 1].count()
        return AtLeast(filters.MOST_ROWS) if counted > filters.MOST_ROWS else counted


class LogChangeList(_Base):
    """Mixed into the ChangeList of Django, or of a theme.

    ``looked_back_to`` is the time to which the list goes back where the period has more
    rows, and ``further_back`` the URL that goes on from there.
    """

    looked_back_to = ""
    further_back = ""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        # The only order that an index serves whatever is filtered.
        return ["-created_at", "-pk"]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.result_count:
            # The same rows were just looked through in vain.
            self.result_list = self.queryset.none()
        for spec in self.filter_specs:
            if isinstance(spec, filters.PeriodFilter) and spec.looked_back_to:
                until = {filters.UNTIL: spec.looked_back_to.isoformat()}
                self.looked_back_to = words.moment(spec.looked_back_to)
                self.further_back = self.get_query_string(until, [PAGE_VAR])
