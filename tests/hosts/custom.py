"""A host project with its own views, exception handlers and URLs."""

from django.db import connection
from django.http import HttpResponse, JsonResponse
from django.urls import include, path
from rest_framework.authentication import BasicAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.throttling import BaseThrottle
from rest_framework.views import exception_handler

from django_idenfy_phone.api.views import (
    ConfirmView,
    CurrentView,
    StartView,
    StatusView,
)


class RefuseAll(BaseThrottle):
    def allow_request(self, request, view):
        return False

    def wait(self):
        return 7.2


class IsOna(BasePermission):
    def has_permission(self, request, view):
        return request.user.get_username() == "ona"


class ThrottledStartView(StartView):
    throttle_classes = (RefuseAll,)


class RestrictedStartView(StartView):
    permission_classes = (IsOna,)


class BasicAuthStatusView(StatusView):
    authentication_classes = (BasicAuthentication,)


class PlainConfirmView(ConfirmView):
    """A subclass that does not mention transactions."""


def is_atomic(request):
    """Tell whether ATOMIC_REQUESTS wraps a view of the host."""
    return JsonResponse({"is_atomic": connection.in_atomic_block})


def maintenance(get_response):
    """A middleware that answers every request by itself."""
    return lambda request: HttpResponse(status=503)


def by_cdn(request):
    """A value for IDENFY_PHONE_CLIENT_NETWORK."""
    return request.headers.get("CF-Connecting-IP", "")


def replace_body(exc, context):
    """An exception handler with its own error format."""
    response = exception_handler(exc, context)
    if response is not None:
        response.data = {"error": {"code": exc.get_codes(), "status": 1}}
    return response


def add_status(exc, context):
    """An exception handler that adds a key to the body of DRF."""
    response = exception_handler(exc, context)
    if response is not None:
        response.data["status"] = response.status_code
    return response


def retry_after_date(exc, context):
    """An exception handler that sets Retry-After to a date, which HTTP allows."""
    response = exception_handler(exc, context)
    if response is not None:
        response["Retry-After"] = "Fri, 31 Dec 2049 23:59:59 GMT"
    return response


urlpatterns = [
    path("signup/", StartView.as_view(purpose="signup")),
    path("signup/current/", CurrentView.as_view(purpose="signup")),
    path("throttled/", ThrottledStartView.as_view()),
    path("restricted/", RestrictedStartView.as_view()),
    path("is-atomic/", is_atomic),
    path("basic-auth/<str:verification_id>/", BasicAuthStatusView.as_view()),
    path("subclass/<str:verification_id>/confirm/", PlainConfirmView.as_view()),
    path("phones/", include("django_idenfy_phone.urls", namespace="phones")),
]
