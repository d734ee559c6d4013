"""A host project that routes a view itself and does not include our URLs."""

from django.urls import path

from django_idenfy_phone.api.views import StartView

urlpatterns = [path("start/", StartView.as_view())]
