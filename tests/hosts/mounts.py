"""A host project that mounts the API in many ways at once."""

from django.conf.urls.i18n import i18n_patterns
from django.http import JsonResponse
from django.urls import include, path, re_path
from rest_framework.authentication import TokenAuthentication

from django_idenfy_phone.api.views import ConfirmView, StartView, StatusView

OURS = "django_idenfy_phone.urls"


class ByToken:
    authentication_classes = (TokenAuthentication,)


class TokenStartView(ByToken, StartView):
    pass


class TokenStatusView(ByToken, StatusView):
    pass


def json_response(exc, context):
    """An exception handler that does not use the responses of DRF."""
    return JsonResponse({"error": exc.get_codes()}, status=418)


def nothing(exc, context):
    """An exception handler that handles no exception."""


token_urls = [
    path("begin/", TokenStartView.as_view(), name="start"),
    path("codes/<uuid:verification_id>/", TokenStatusView.as_view(), name="detail"),
]
accounts_urls = [
    path("sign-up/", StartView.as_view(purpose="signup")),
    path("phone/", include(OURS)),
]
rest_urls = [
    path("", StartView.as_view()),
    path("<str:verification_id>/", StatusView.as_view()),
    path("<str:verification_id>/confirm/", ConfirmView.as_view()),
]
uuid_urls = [
    path("start/", StartView.as_view()),
    path("<uuid:verification_id>/", StatusView.as_view()),
    path("<uuid:verification_id>/confirm/", ConfirmView.as_view()),
]

VERSION_4 = "^(?P<verification_id>[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f-]{21})/"
version_4_urls = [
    path("start/", StartView.as_view()),
    re_path(f"{VERSION_4}$", StatusView.as_view()),
    re_path(f"{VERSION_4}confirm/$", ConfirmView.as_view()),
]

urlpatterns = [
    path("phone/", include(OURS)),
    path("again/phone/", include(OURS)),
    path("<str:version>/phone/", include(OURS)),
    path("<int:shop>/<slug:lang>/phone/", include(OURS, namespace="shop")),
    re_path(r"^(v[0-9])/regex/", include(OURS)),
    # A path that begins with two slashes.
    re_path("^(?P<anything>/[^/]+)/", include(OURS)),
    path("option/", include(OURS, namespace="option"), {"site": 7}),
    path("uuid/", include(uuid_urls)),
    path("version-4/", include(version_4_urls)),
    *i18n_patterns(path("in-a-language/", include(OURS))),
    path("nested/", include((accounts_urls, "accounts"))),
    path("deep/", include(([path("er/", include((accounts_urls, "a")))], "b"))),
    path("token/", include((token_urls, "token"))),
    path("token/<str:version>/", include((token_urls, "token"), namespace="versioned")),
    path("rest/", include(rest_urls)),
    path("by-hand/start/", TokenStartView.as_view()),
    path("by-hand/<str:verification_id>/", TokenStatusView.as_view()),
]
