"""A host that routes our views by hand, without our urls, for test_api."""

from django.urls import path

from django_idenfy_phone.api.views import StartView

urlpatterns = [path("start/", StartView.as_view())]
