"""The admin under a strict Content-Security-Policy, whose reports are kept."""

import json

from django.contrib import admin
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

# The reports since a test emptied it.
REPORTS = []


def send_policy(get_response):
    """The middleware."""

    def middleware(request):
        response = get_response(request)
        policy = "default-src 'self'; report-uri /reports/"
        response["Content-Security-Policy"] = policy
        return response

    return middleware


@csrf_exempt
def keep_report(request):
    REPORTS.append(json.loads(request.body)["csp-report"])
    return HttpResponse(status=204)


def break_policy(request):
    return HttpResponse('<p style="top: 0">')


urlpatterns = [
    path("admin/", admin.site.urls),
    path("reports/", keep_report),
    path("broken/", break_policy),
]
