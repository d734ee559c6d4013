"""A read-only log of the verifications: what happened to which attempt."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters, ShowFacets
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.contrib.auth import get_user_model
from django.db.models import ForeignObjectRel, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy

from ..health import health
from ..models import PhoneVerification
from . import links, search, words
from .attempt import AttemptPage
from .banners import banners
from .changelist import BoundedPaginator, LogChangeList
from .explain import ExplainPage
from .filters import PeriodFilter, PurposeFilter, RegionFilter, UserFilter
from .summary import SummaryPage

# The parameters of the filters.
PARAMETERS = {
    *("status", "status__exact", "failure", "failure__exact"),
    *("period", "until", "purpose", "region", "user"),
}


@admin.register(PhoneVerification)
class PhoneVerificationAdmin(AttemptPage, ExplainPage, SummaryPage):
    list_display = (
        *("number", "status_label", "user_link", "purpose", "started", "time_to_send"),
        *("checks_used", "failure_text", "reference"),
    )
    # The period first: its bounds are those of the whole log.
    list_filter = (
        *(PeriodFilter, "status", "failure", PurposeFilter, RegionFilter, UserFilter),
    )
    list_per_page = 50
    list_max_show_all = 0
    ordering = ("-created_at",)
    sortable_by = ()
    actions = None
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    # What is searched for: see ``search``.
    search_fields = ("pk",)
    search_help_text = gettext_lazy(
        "A whole phone number, a whole id, or an exact user name or e-mail address. "
        "Nothing is found by a part of it."
    )

    class Media:
        css = {"all": ("django_idenfy_phone/admin.css",)}

    @admin.display(description=gettext_lazy("phone number"))
    def number(self, row: PhoneVerification) -> str:
        return words.number(row)

    @admin.display(description=gettext_lazy("status"))
    def status_label(self, row: PhoneVerification) -> str:
        return words.status(row)

    @admin.display(description=gettext_lazy("started"))
    def started(self, row: PhoneVerification) -> str:
        return words.moment(row.created_at)

    @admin.display(description=gettext_lazy("time to send"))
    def time_to_send(self, row: PhoneVerification) -> str:
        return words.time_to_send(row)

    @admin.display(description=gettext_lazy("checks used"))
    def checks_used(self, row: PhoneVerification) -> str:
        return words.checks_used(row)

    @admin.display(description=gettext_lazy("failure"))
    def failure_text(self, row: PhoneVerification) -> str:
        return words.failure(row)

    @admin.display(description=gettext_lazy("user"))
    def user_link(self, row: PhoneVerification) -> str:
        return words.user(row)

    def get_list_display(self, request: HttpRequest) -> Any:
        names: Sequence[Any] = super().get_list_display(request)
        if not links.may_view(self.admin_site, get_user_model(), request):
            return names
        return [self._linked_user() if n == "user_link" else n for n in names]

    def _linked_user(self) -> Callable[[PhoneVerification], str]:
        @admin.display(description=gettext_lazy("user"))
        def user_link(row: PhoneVerification) -> str:
            if row.user_id is None:
                return words.user(row)
            url = links.object_url(self.admin_site, get_user_model(), row.user_id)
            return format_html('<a href="{}">{}</a>', url, words.user(row))

        return user_link

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        # A theme has a ChangeList of its own.
        base = super().get_changelist(request, **kwargs)
        return type("ChangeList", (LogChangeList, base), {})

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"warnings": list(banners(health()))} | (extra_context or {})
        return super().changelist_view(request, context)

    def get_search_results(
        self,
        request: HttpRequest,
        queryset: QuerySet[PhoneVerification],
        search_term: str,
    ) -> tuple[QuerySet[PhoneVerification], bool]:
        if not search_term.strip():
            return queryset, False
        found = search.condition(search_term)
        return (queryset.filter(found) if found else queryset.none()), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow only list_filter lookups, and what the popups of raw-id fields ask for.

        The admin answers others with a redirect. By those, a number or a request_id
        could be guessed digit by digit, and some values end in a database error.
        """
        is_filter = lookup in PARAMETERS
        is_allowed = is_filter or (lookup, value) in self._popup_lookups()
        if not is_allowed or "\0" in value:
            raise IncorrectLookupParameters
        return True

    def _popup_lookups(self) -> Iterator[tuple[str, str]]:
        """The ``limit_choices_to`` of other models' fields, as parameters of a URL."""
        for relation in self.opts.get_fields(include_hidden=True):
            if isinstance(relation, ForeignObjectRel):
                limit = relation.field.get_limit_choices_to()
                yield from url_params_from_lookup_dict(limit).items()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: PhoneVerification | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: PhoneVerification | None = None
    ) -> bool:
        return False
