from typing import Any

from django.conf import settings
from django.contrib.auth.mixins import LoginRequiredMixin
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.generic import TemplateView


class ProfileView(LoginRequiredMixin, TemplateView):
    template_name = "accounts/profile.html"


@method_decorator(ensure_csrf_cookie, name="dispatch")
class ConfirmPhoneView(LoginRequiredMixin, TemplateView):
    """Serves only the page. Its script calls the API."""

    template_name = "accounts/confirm_phone.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        inbox = settings.IDENFY_PHONE_API_URL if settings.USES_SANDBOX else None
        context = {"texts": texts(), "inbox": inbox, "demo": settings.DEMO}
        return super().get_context_data(**kwargs) | context


def texts() -> dict[str, str]:
    """Return the script's messages. API errors carry their own text."""
    return {
        "sending": _("Sending a code to {number} …"),
        "enter": _("A code is on its way to {number}. Enter its 4 digits."),
        "checking": _("Checking the code …"),
        "wrong": _("This code is wrong. Tries left: {left}."),
        "spent": _("This code can no longer be used. Please ask for a new one."),
        "locked": _("Too many wrong codes. Please ask for a new one."),
        "expired": _("This code has expired. Please ask for a new one."),
        "number_refused": _("No code can be sent to this number. Try another one."),
        "not_sent": _("The code could not be sent. Please try again."),
        "maybe_sent": _("We do not know whether the code was sent. Ask for a new one."),
        "number_taken": _("This number belongs to another account. Try another one."),
        "confirmed": _("Your number is confirmed."),
        "resend": _("Send a new code"),
        "resend_in": _("Send a new code (in {seconds} s)"),
        "wait": _("Please wait {seconds} s."),
        "offline": _("The site cannot be reached. Please try again."),
    }
