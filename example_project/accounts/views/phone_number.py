"""The number of an account: password, number, code. The script talks to the API."""

import uuid
from typing import Any

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.response import Response

from django_idenfy_phone.api.views import StartView
from django_idenfy_phone.models import PhoneVerification

from .. import texts
from ..countries import to_international
from ..forms import NumberForm, PasswordForm
from ..password import HasConfirmedPassword, is_confirmed, note_confirmed
from ..visits import Visit
from .answers import go_to, show_form, wants_json
from .steps import CodeStep, ResendStep, StartStep, Step


class NumberStep(LoginRequiredMixin, Step):
    number_page = "phone-number"
    code_page = "phone-number-code"
    resend_view = "phone-number-resend"

    def handle_no_permission(self) -> HttpResponseBase:
        if wants_json(self.request):
            return JsonResponse({"code": "not_authenticated"}, status=401)
        return super().handle_no_permission()


class PasswordView(NumberStep):
    def get(self, request: HttpRequest) -> HttpResponseBase:
        return self.show(PasswordForm(user=request.user))

    def post(self, request: HttpRequest) -> HttpResponseBase:
        form = PasswordForm(request.POST, user=request.user)
        if not form.is_valid():
            return self.show(form)
        note_confirmed(request.session)
        return redirect("phone-number")

    def show(self, form: PasswordForm) -> HttpResponseBase:
        return show_form(self.request, "accounts/password.html", form, {})


class NumberView(NumberStep, StartStep):
    def dispatch(self, request: HttpRequest, *args: Any, **kw: Any) -> HttpResponseBase:
        if request.user.is_authenticated and not is_confirmed(request.session):
            return go_to(request, "password")
        return super().dispatch(request, *args, **kw)

    def get(self, request: HttpRequest) -> HttpResponseBase:
        return self.show(NumberForm())

    def post(self, request: HttpRequest) -> HttpResponseBase:
        form = NumberForm(request.POST)
        if not form.is_valid():
            return self.show(form)
        return self.start(form)

    def show(self, form: NumberForm) -> HttpResponseBase:
        context = {
            "live": self.visit.live(),
            "code_page": self.code_page,
            "texts": texts.for_script(),
        }
        return show_form(self.request, "accounts/phone_number.html", form, context)


class NumberCodeView(NumberStep, CodeStep):
    def urls(self, row: PhoneVerification) -> dict[str, str]:
        return {
            "status_url": reverse("phone-detail", args=[row.pk]),
            "confirm_url": reverse("phone-confirm", args=[row.pk]),
            "current_url": reverse("phone-current"),
        }

    def finish(self, row: PhoneVerification) -> HttpResponseBase:
        messages.success(self.request, _("Your number is confirmed."))
        return go_to(self.request, "profile")

    def go_on(self) -> HttpResponseBase:
        return redirect("profile")


class NumberResendView(NumberStep, ResendStep):
    pass


class NumberStartView(StartView):
    """The API's start, for numbers as people write them, after the password."""

    permission_classes = (HasConfirmedPassword,)

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        number, country = map(request.data.get, ("phone_number", "country"))
        if isinstance(number, str) and isinstance(country, str):
            request.data["phone_number"] = to_international(number, country)
        return super().post(request, *args, **kwargs)

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        # So that the page finds it, also once it has failed. A refusal names the one
        # whose code can still be entered.
        if "id" in response.data:
            Visit(request, self.purpose).remember(uuid.UUID(response.data["id"]))
        return super().finalize_response(request, response, *args, **kwargs)
