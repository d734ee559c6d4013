"""The page "Why can't this customer start?", which also unblocks and releases."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters

from .. import brake, phone, services
from ..exceptions import NumberNotSupported, UnknownUser
from ..explain import Reason, explain
from ..models import PhoneVerification
from ..network import mask_network, read_network
from ..starting import find_user

TEMPLATE = "admin/django_idenfy_phone/phoneverification/explain.html"


class CustomerForm(forms.Form):
    """Who cannot start: any of the three."""

    number = forms.CharField(label=gettext_lazy("Phone number"), required=False)
    user = forms.CharField(
        label=gettext_lazy("User"),
        help_text=gettext_lazy("The login name or the primary key."),
        required=False,
    )
    network = forms.CharField(label=gettext_lazy("IP address"), required=False)

    def clean_user(self) -> Any:
        try:
            text = self.cleaned_data["user"]
            return find_user(text) if text else None
        except UnknownUser as error:
            raise ValidationError(str(error)) from None

    def clean_network(self) -> str:
        try:
            text = self.cleaned_data["network"]
            return read_network(text) if text else ""
        except ValueError:
            raise ValidationError(_("This is no IP address.")) from None

    def clean(self) -> None:
        super().clean()
        if not self.errors and not any(self.cleaned_data.values()):
            raise ValidationError(_("Give a number, a user or an IP address."))

    @property
    def customer(self) -> dict[str, Any]:
        """The arguments of ``explain`` and ``unblock``."""
        given = self.cleaned_data
        whom = {"user": given["user"], "network": given["network"] or None}
        return {"phone_number": given["number"] or None} | whom

    @property
    def masked_number(self) -> str:
        """As "+370******67"; "" where there is none."""
        try:
            return phone.mask(phone.read(self.cleaned_data["number"])[0].e164)
        except NumberNotSupported:
            return ""


class ExplainPage(admin.ModelAdmin):  # type: ignore[type-arg]
    """Adds the page to an admin of verifications.

    Whoever may view those may look. Unblocking and releasing need the permission
    ``django_idenfy_phone.unblock``. Numbers come by POST only: not into access logs.
    """

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_explain"
        view = self.admin_site.admin_view(self.explain_view)
        return [path("explain/", view, name=name), *super().get_urls()]

    @method_decorator(sensitive_post_parameters())
    def explain_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        is_asked = request.method == "POST" and "_release" not in request.POST
        form = CustomerForm(request.POST if is_asked else None)
        context: dict[str, Any] = {}
        if request.method == "POST" and not is_asked:
            self._release(request, request.POST["_release"])
        elif form.is_valid():
            is_to_unblock = "_unblock" in request.POST
            look = self._unblock if is_to_unblock else _explain
            context = {"is_explained": True, "reasons": look(request, form)}
        request.current_app = self.admin_site.name
        context |= self._context(request) | {"form": form}
        return TemplateResponse(request, TEMPLATE, context)

    def _context(self, request: HttpRequest) -> dict[str, Any]:
        return self.admin_site.each_context(request) | {
            "title": _("Why can't this customer start?"),
            "opts": self.opts,
            "may_unblock": _may_unblock(request),
            "brakes": brake.engaged(),
            "is_enforced": brake.is_enforced(),
        }

    def _unblock(self, request: HttpRequest, form: CustomerForm) -> list[Reason]:
        _require_unblock(request)
        customer = form.customer
        try:
            reasons = services.unblock(**customer)
        except NumberNotSupported:
            # Its reason is that it is no number.
            return explain(**customer)
        known = [_("number %s") % form.masked_number] if form.masked_number else []
        known += [_("user")] if customer["user"] else []
        if network := customer["network"]:
            known += [_("network %s") % mask_network(network)]
        text = _("Unblocked: %s") % ", ".join(known)
        _log(request, text, customer["user"])
        messages.success(request, text)
        return reasons

    def _release(self, request: HttpRequest, region: str) -> None:
        _require_unblock(request)
        known = {each.region for each in brake.engaged()}
        if region in known and services.release_brake(region):
            text = _("Released the brake of the region %s") % region
            _log(request, text)
            messages.success(request, text)


def _explain(request: HttpRequest, form: CustomerForm) -> list[Reason]:
    return explain(**form.customer)


def _may_unblock(request: HttpRequest) -> bool:
    return request.user.has_perm("django_idenfy_phone.unblock")


def _require_unblock(request: HttpRequest) -> None:
    if not _may_unblock(request):
        raise PermissionDenied


def _log(request: HttpRequest, text: str, user: Any = None) -> None:
    """In the admin's log: at the user who was unblocked, if any. No number in clear."""
    subject = user if user is not None else PhoneVerification
    LogEntry.objects.create(
        user_id=str(request.user.pk),
        content_type=ContentType.objects.get_for_model(subject),
        object_id=None if user is None else str(user.pk),
        object_repr=text[:200],
        action_flag=CHANGE,
        change_message=text,
    )
