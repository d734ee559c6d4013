"""A host project that mounts views of ours without an authentication class."""

from django.http import HttpResponse
from django.urls import include, path
from rest_framework.authentication import TokenAuthentication
from rest_framework.views import APIView

from django_idenfy_phone.api.views import StartView, StatusView


class OpenStatusView(StatusView):
    authentication_classes = ()


class HostView(APIView):
    authentication_classes = ()


def page(request):
    return HttpResponse()


by_token = OpenStatusView.as_view(authentication_classes=[TokenAuthentication])
open_urls = [
    path("start/", StartView.as_view(authentication_classes=[])),
    path("<str:verification_id>/", OpenStatusView.as_view()),
]

urlpatterns = [
    path("", page),
    path("host/", HostView.as_view()),
    path("phone/", include("django_idenfy_phone.urls")),
    path("token/<str:verification_id>/", by_token),
    path("shops/", include([path("<int:shop>/", include(open_urls))])),
]
