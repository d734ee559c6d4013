"""A link from a user of the host to the log, for the host's own UserAdmin."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from ..models import PhoneVerification
from . import links


class PhoneVerificationsLink(admin.ModelAdmin):  # type: ignore[type-arg]
    """Stands before the UserAdmin in the bases of a class."""

    @admin.display(description=_("phone verifications"))
    def phone_verifications_link(self, user: Any) -> str:
        query = {"user": user.pk}
        url = links.list_url(self.admin_site, PhoneVerification, **query)
        return format_html('<a href="{}">{}</a>', url, _("Show them"))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return (*fields, "phone_verifications_link")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or not links.may_view(
            self.admin_site, PhoneVerification, request
        ):
            return fieldsets
        fields = {"fields": ("phone_verifications_link",)}
        return (*fieldsets, (_("Phone verification"), fields))
