from django.urls import path

from .api.views import ConfirmView, CurrentView, StartView, StatusView

app_name = "django_idenfy_phone"

urlpatterns = [
    path("start/", StartView.as_view(), name="start"),
    # Before the ids.
    path("current/", CurrentView.as_view(), name="current"),
    path("<str:verification_id>/", StatusView.as_view(), name="detail"),
    path("<str:verification_id>/confirm/", ConfirmView.as_view(), name="confirm"),
]
