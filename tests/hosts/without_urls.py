"""A host project that routes two views itself and does not include our URLs."""

from django.urls import path

from django_idenfy_phone.api.views import ConfirmView, StartView

urlpatterns = [
    path("start/", StartView.as_view()),
    path("confirm/<str:verification_id>/", ConfirmView.as_view()),
]
