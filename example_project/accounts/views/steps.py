"""The steps that both flows share: the page of the code, and a new code."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
)
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.debug import sensitive_post_parameters
from rest_framework.exceptions import PermissionDenied

from django_idenfy_phone import services
from django_idenfy_phone.conf import conf
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification

from .. import texts
from ..forms import NumberForm, code_in
from ..visits import Visit, name_of, state_of
from .answers import as_json, go_to, refuse, refuse_as, send_back, wants_json

# So long a code is valid, says its SMS.
VALID_FOR = timedelta(minutes=5)
# The page of the code tells these by itself.
TOLD_BY_STATE = {"expired", "locked", "failed", "number_taken"}


@method_decorator(
    [
        sensitive_post_parameters("code", "password", "phone_number"),
        never_cache,
        ensure_csrf_cookie,
    ],
    name="dispatch",
)
class Step(View):
    """A view of a flow. The script gets JSON where a form gets a page."""

    purpose = ""
    number_page = ""
    code_page = ""
    # Names of views that the page of the code calls.
    resend_view = ""
    # The error where the session asked for no code.
    no_code = "not_found"

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        # The page of a code names its number: another tab may show another one.
        shown = request.POST.get("shown") or request.GET.get("shown", "")
        self.visit = Visit(request, self.purpose, shown)

    def code_url(self) -> str:
        """The page of a code, which goes on to show the number that it shows."""
        return f"{reverse(self.code_page)}?shown={self.visit.shown}"


class StartStep(Step):
    """Asks for a code to the number of a valid form."""

    def start(self, form: NumberForm) -> HttpResponseBase:
        try:
            self.visit.start(form.cleaned_data["phone_number"])
        except (VerificationError, PermissionDenied) as error:
            if wants_json(self.request):
                return refuse_as(self.request, self.number_page, error)
            text = texts.text_of_code(*texts.code_and_wait(error))
            form.add_error("phone_number", text)
            return self.show(form)
        return go_to(self.request, self.code_page)

    def show(self, form: Any) -> HttpResponseBase:
        """The page with this form, or its errors as JSON."""
        raise NotImplementedError


class CodeStep(Step):
    """Shows what became of the code, and takes it."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        if "earlier" in request.GET:
            self.visit.go_back()
            return redirect(self.code_page)
        row = self.visit.current()
        if row is None:
            return send_back(request, self.number_page, self.no_code)
        if row.is_verified and not row.number_taken:
            return self.go_on()
        return render(request, "accounts/code.html", self.context(row))

    def context(self, row: PhoneVerification) -> dict[str, Any]:
        name = state_of(row)
        state = texts.STATES[name]
        return {
            "state_name": name,
            "state": state,
            "state_text": state.text.format(number=row.masked_number),
            "wait": texts.wait_until(row.resend_at),
            # The way back, where this number came to nothing.
            "live": None if state.takes_code else self.other_live(row),
            "code_page": self.code_page,
            "usual_time": texts.usual_time(),
            "is_old": is_old(row),
            "valid_for": VALID_FOR.total_seconds(),
            "lifetime": conf.CODE_LIFETIME.total_seconds(),
            "newest": max(each.created_at for each in self.visit.rows()).isoformat(),
            "shown": name_of(row),
            "data": as_json(row),
            "texts": texts.for_script(),
            "number_page": self.number_page,
            "resend_view": self.resend_view,
            **self.urls(row),
        }

    def other_live(self, row: PhoneVerification) -> PhoneVerification | None:
        live = self.visit.live()
        return live if live is not None and live.pk != row.pk else None

    def post(self, request: HttpRequest) -> HttpResponseBase:
        row = self.visit.current()
        if row is None:
            return send_back(request, self.number_page, self.no_code)
        code = code_in(request.POST.get("code", ""))
        if not code:
            return refuse(request, self.code_url(), "invalid_code")
        try:
            row = services.confirm_verification(row.pk, code, user=self.visit.user)
        except VerificationError as error:
            if error.code in TOLD_BY_STATE:
                return go_to(request, self.code_url())
            return refuse_as(request, self.code_url(), error)
        if row.is_verified:
            return self.finish(row)
        # Among the others of the session, for its state and its wait.
        row = self.visit.current()
        return self.refuse_code(row) if row else go_to(request, self.code_url())

    def refuse_code(self, row: PhoneVerification) -> HttpResponseBase:
        if wants_json(self.request):
            return JsonResponse(as_json(row))
        if texts.STATES[state_of(row)].takes_code:
            wrong, tries = texts.text_of_code("wrong_code"), row.checks_left
            text = f"{wrong} {texts.tries_left(tries)}"
            messages.error(self.request, text, extra_tags="wrong_code")
        return redirect(self.code_url())

    def urls(self, row: PhoneVerification) -> dict[str, str]:
        """Where the script asks for the state, and confirms."""
        raise NotImplementedError

    def finish(self, row: PhoneVerification) -> HttpResponseBase:
        """The code was right."""
        raise NotImplementedError

    def go_on(self) -> HttpResponseBase:
        """The number is confirmed already."""
        raise NotImplementedError


def is_old(row: PhoneVerification) -> bool:
    """Whether its code may be too old, as far as its SMS tells."""
    sent_at = row.claimed_at
    return sent_at is not None and timezone.now() - sent_at > VALID_FOR


class ResendStep(Step):
    """Asks for a new code to the number of the current verification."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Send nothing: the form led to a login or to an error page."""
        return redirect(self.code_page)

    def post(self, request: HttpRequest) -> HttpResponseBase:
        row = self.visit.current()
        if row is None:
            return send_back(request, self.number_page, self.no_code)
        number = str(row.phone_number.as_e164)
        try:
            self.visit.start(number, anew=True)
        except (VerificationError, PermissionDenied) as error:
            return refuse_as(request, self.code_url(), error)
        return go_to(request, self.code_page)


class StatusStep(Step):
    """The state of the current verification, as JSON."""

    http_method_names = ["get"]

    def get(self, request: HttpRequest) -> HttpResponse:
        row = self.visit.current()
        if row is None:
            # Another tab may have logged in since: keep its cookie.
            request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
            return JsonResponse({"code": self.no_code}, status=404)
        return JsonResponse(as_json(row))
