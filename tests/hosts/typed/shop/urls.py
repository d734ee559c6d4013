from django.urls import include, path

from .views import SignUpStartView, start

urlpatterns = [
    path("phone/", include("django_idenfy_phone.urls")),
    path("signup/phone/", SignUpStartView.as_view()),
    path("change/phone/", start),
]
