"""The page of one attempt: its story, its details, and others beside it."""

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from .. import services
from ..models import PhoneVerification
from ..phone import written
from . import links, timeline, words
from .advice import advice

logger = logging.getLogger(__name__)

FULL_NUMBER = "django_idenfy_phone.view_full_number"
FULL_NUMBER_TEMPLATE = "admin/django_idenfy_phone/phoneverification/full_number.html"
# So many other attempts are listed, of the number and of the user.
MOST_OTHERS = 10
TIMES = (
    *("created_at", "send_by", "next_send_at", "claimed_at", "lease_until", "sent_at"),
    *("expires_at", "checking_until", "verified_at", "announced_at", "announce_at"),
    "redeemed_at",
)
COUNTS = (
    *("send_attempts", "checks", "checks_wrong", "checks_refunded"),
    "announce_attempts",
)


class Line(NamedTuple):
    """Another attempt, in a list."""

    url: str
    started: str
    text: str


class Others(NamedTuple):
    """The newest other attempts; ``has_more`` where not all of them are listed."""

    title: str
    lines: list[Line]
    has_more: bool


class AttemptPage(admin.ModelAdmin):  # type: ignore[type-arg]
    """The change view, which changes nothing, and the view of the full number."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[PhoneVerification]:
        return super().get_queryset(request).select_related("user")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        # The page shows the details in words of its own.
        return []

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        if row is not None and self.has_view_permission(request, row):
            extra_context = self._story(request, row) | (extra_context or {})
        return super().change_view(request, object_id, form_url, extra_context)

    def _story(self, request: HttpRequest, row: PhoneVerification) -> dict[str, Any]:
        now, site = timezone.now(), self.admin_site
        full_number_url = ""
        if request.user.has_perm(FULL_NUMBER):
            full_number_url = links.object_url(
                site, PhoneVerification, row.pk, "full_number"
            )
        return {
            "status_label": words.status(row),
            "advice": advice(row, now, services.resend_at(row, user=row.user)),
            "steps": [shown(step) for step in timeline.steps(row, now)],
            "details": details(row),
            "others": list(self._others(request, row)),
            "full_number_url": full_number_url,
        }

    def _others(self, request: HttpRequest, row: PhoneVerification) -> Iterator[Others]:
        rows = self.get_queryset(request).exclude(pk=row.pk).order_by("-created_at")
        of_number = rows.filter(phone_number=written(row.phone_number))
        yield self._newest(_("Other attempts of this number"), of_number)
        if row.user_id is not None:
            of_user = rows.filter(user_id=row.user_id)
            yield self._newest(_("Other attempts of this user"), of_user)

    def _newest(self, title: str, rows: QuerySet[PhoneVerification]) -> Others:
        lines = [self._line(row) for row in rows[: MOST_OTHERS + 1]]
        return Others(title, lines[:MOST_OTHERS], len(lines) > MOST_OTHERS)

    def _line(self, row: PhoneVerification) -> Line:
        url = links.object_url(self.admin_site, PhoneVerification, row.pk)
        state = row.get_failure_display() or row.get_status_display()
        text = ", ".join((words.number(row), words.user(row), str(state)))
        return Line(url, words.moment(row.created_at), text)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.full_number_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_full_number"
        return [path("<uuid:pk>/full-number/", view, name=name), *super().get_urls()]

    @method_decorator(require_POST)
    def full_number_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Show the full number, and write down who saw it."""
        row = self.get_object(request, str(pk))
        if row is None:
            raise Http404
        is_allowed = self.has_view_permission(request, row)
        if not is_allowed or not request.user.has_perm(FULL_NUMBER):
            raise PermissionDenied
        self.log_change(request, row, _("Saw the full number %s") % row.masked_number)
        logger.info("Verification %s: its full number was shown.", row.reference)
        context = self.admin_site.each_context(request) | {
            "title": _("Full number"),
            "number": written(row.phone_number),
            "attempt_url": links.object_url(self.admin_site, PhoneVerification, pk),
        }
        return TemplateResponse(request, FULL_NUMBER_TEMPLATE, context)


def shown(step: timeline.Step) -> tuple[str, str, str]:
    """The text, the time and the gap of a step."""
    gap = "" if step.gap is None else words.duration(step.gap)
    return step.text, words.moment(step.at) if step.at else "", gap


def details(row: PhoneVerification) -> list[tuple[str, str]]:
    """What is stored of the attempt, as pairs of a label and a text."""
    shown = [
        (_("Id"), str(row.pk)),
        (_("Phone number"), words.number(row)),
        (_("User"), words.user(row)),
        (_("Network"), row.network or words.NOTHING),
        (_("Purpose"), row.purpose or words.NOTHING),
        (_("Status"), row.get_status_display()),
        (_("Failure"), words.failure(row)),
        (_("iDenfy's identifier"), row.provider_code or words.NOTHING),
        (_("Checks used"), words.checks_used(row)),
        (_label("announce_failure"), row.announce_failure or words.NOTHING),
    ]
    times = [name for name in TIMES if _tells(row, name)]
    shown += [(_label(name), str(getattr(row, name))) for name in COUNTS]
    shown += [(_label(name), words.moment(getattr(row, name))) for name in times]
    return shown


def _label(name: str) -> str:
    field: Any = PhoneVerification._meta.get_field(name)
    return capfirst(str(field.verbose_name))


def _tells(row: PhoneVerification, name: str) -> bool:
    """Whether this time is set, and says more than that a new row is sent at once."""
    if name == "announce_at" and row.announced_at:
        return False
    at: datetime | None = getattr(row, name)
    return at is not None and at >= row.created_at
