import time

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from benchmarks.floors.views import ConfirmFloor, StartFloor


def cpu_seconds(request: HttpRequest) -> HttpResponse:
    """The CPU time of this web process so far."""
    return HttpResponse(str(time.process_time()))


urlpatterns = [
    path("cpu/", cpu_seconds),
    path("phone/", include("django_idenfy_phone.urls")),
    path("floor/start/", StartFloor.as_view()),
    path("floor/<int:pk>/confirm/", ConfirmFloor.as_view()),
]
