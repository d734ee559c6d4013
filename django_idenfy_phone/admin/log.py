"""A read-only log of the verifications: what happened to which attempt."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.widgets import url_params_from_lookup_dict
from django.db.models import ForeignObjectRel
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import health
from ..models import PhoneVerification


@admin.register(PhoneVerification)
class PhoneVerificationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("reference", "masked", "status", "failure", "user", "created_at")
    list_filter = ("status", "failure")
    list_select_related = ("user",)
    ordering = ("-created_at",)
    fields = (
        ("id", "masked", "region"),
        ("user", "is_anonymous", "network", "purpose"),
        ("status", "is_verified", "failure", "provider_code"),
        ("created_at", "send_by", "next_send_at", "send_attempts"),
        ("claimed_at", "lease_until", "sent_at", "expires_at"),
        ("checks", "checks_wrong", "checks_refunded", "checking_until"),
        ("verified_at", "announced_at", "announce_at", "announce_attempts"),
        ("redeemed_at", "number_taken"),
    )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        for text in self._warnings():
            self.message_user(request, text, messages.WARNING)
        return super().changelist_view(request, extra_context)

    def _warnings(self) -> Iterator[str]:
        oldest_due = health.oldest_due()
        if health.is_too_long(oldest_due):
            minutes = oldest_due // timedelta(minutes=1)
            yield f"{health.Trouble.QUEUE.label} ({minutes} min)"
        newest = PhoneVerification.objects.order_by("-created_at").first()
        if newest is not None and not newest.network:
            yield _(
                "The newest start has no client network, so the limits by network do "
                "not apply. Behind a proxy, set REST_FRAMEWORK['NUM_PROXIES']."
            )

    @admin.display(description=gettext_lazy("phone number"))
    def masked(self, row: PhoneVerification) -> str:
        return row.masked_number

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow only list_filter lookups, and what the popups of raw-id fields ask for.

        The admin answers others with a redirect. By those, a number or a request_id
        could be guessed digit by digit, and some values end in a database error.
        """
        is_filter = lookup.removesuffix("__exact") in self.list_filter
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
