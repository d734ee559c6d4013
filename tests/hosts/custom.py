"""A host project's own views, handler and URLs, for test_api."""

from django.db import connection
from django.http import JsonResponse
from django.urls import include, path
from rest_framework.authentication import BasicAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.throttling import BaseThrottle
from rest_framework.views import exception_handler

from django_idenfy_phone.api.views import ConfirmView, StartView, StatusView


class Busy(BaseThrottle):
    def allow_request(self, request, view):
        return False

    def wait(self):
        return 7.2


class OnlyOna(BasePermission):
    def has_permission(self, request, view):
        return request.user.get_username() == "ona"


class BusyView(StartView):
    throttle_classes = (Busy,)


class OnasView(StartView):
    permission_classes = (OnlyOna,)


class PasswordView(StatusView):
    authentication_classes = (BasicAuthentication,)


class SlowConfirmView(ConfirmView):
    """A subclass that says nothing about transactions."""


def is_atomic(request):
    """What ATOMIC_REQUESTS does to a view that is not ours."""
    return JsonResponse({"is_atomic": connection.in_atomic_block})


def by_cdn(request):
    """A host's CLIENT_NETWORK."""
    return request.headers.get("CF-Connecting-IP", "")


def enveloped(exc, context):
    """A host's EXCEPTION_HANDLER with an envelope of its own."""
    response = exception_handler(exc, context)
    if response is not None:
        response.data = {"error": {"code": exc.get_codes(), "status": 1}}
    return response


def annotated(exc, context):
    """... and one that adds a key to DRF's own envelope."""
    response = exception_handler(exc, context)
    if response is not None:
        response.data["status"] = response.status_code
    return response


def dated(exc, context):
    """... and one that gives Retry-After as a date, which HTTP allows."""
    response = exception_handler(exc, context)
    if response is not None:
        response["Retry-After"] = "Fri, 31 Dec 2049 23:59:59 GMT"
    return response


urlpatterns = [
    path("signup/", StartView.as_view(purpose="signup")),
    path("busy/", BusyView.as_view()),
    path("ona/", OnasView.as_view()),
    path("atomic/", is_atomic),
    path("password/<str:verification_id>/", PasswordView.as_view()),
    path("own/<str:verification_id>/confirm/", SlowConfirmView.as_view()),
    path("phones/", include("django_idenfy_phone.urls", namespace="phones")),
]
