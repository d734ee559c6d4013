"""A read-only log: what happened to which attempt."""

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .models import PhoneVerification


@admin.register(PhoneVerification)
class PhoneVerificationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "masked", "status", "failure", "user", "created_at")
    list_filter = ("status", "failure")
    list_select_related = ("user",)
    ordering = ("-created_at",)
    fields = (
        ("id", "masked", "region"),
        ("user", "is_anonymous", "purpose"),
        ("status", "is_verified", "failure", "provider_code"),
        ("created_at", "send_by", "next_send_at", "send_attempts"),
        ("claimed_at", "lease_until", "sent_at", "expires_at"),
        ("checks", "checks_wrong", "checks_refunded", "checking_until"),
        ("verified_at", "announced_at", "announce_at", "announce_attempts"),
    )

    @admin.display(description=_("phone number"))
    def masked(self, row: PhoneVerification) -> str:
        return row.masked_number

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
