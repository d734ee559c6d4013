from typing import Any

from django.contrib.auth import views
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.generic import TemplateView


class ProfileView(LoginRequiredMixin, TemplateView):
    template_name = "accounts/profile.html"

    def handle_no_permission(self) -> Any:
        return redirect("sign-up")


class LogoutView(views.LogoutView):
    http_method_names = ["get", "post"]

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Log nobody out: an error page of the form was loaded again."""
        return redirect("profile")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """For people: Django's own page is for developers."""
    return render(request, "accounts/out_of_date.html", status=403)
