from accounts.forms import LoginForm
from accounts.views.account import LogoutView, ProfileView
from accounts.views.phone_number import (
    NumberCodeView,
    NumberResendView,
    NumberStartView,
    NumberView,
    PasswordView,
)
from accounts.views.sign_up import (
    SignUpCodeView,
    SignUpResendView,
    SignUpStatusView,
    SignUpView,
)
from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.contrib.staticfiles.views import serve
from django.urls import path

from django_idenfy_phone.api.views import ConfirmView, CurrentView, StatusView

DETAIL = "phone/<str:verification_id>/"

urlpatterns = [
    path("", ProfileView.as_view(), name="profile"),
    path("login/", LoginView.as_view(authentication_form=LoginForm), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("sign-up/", SignUpView.as_view(), name="sign-up"),
    path("sign-up/code/", SignUpCodeView.as_view(), name="sign-up-code"),
    path("sign-up/resend/", SignUpResendView.as_view(), name="sign-up-resend"),
    path("sign-up/status/", SignUpStatusView.as_view(), name="sign-up-status"),
    path("password/", PasswordView.as_view(), name="password"),
    path("number/", NumberView.as_view(), name="phone-number"),
    path("number/code/", NumberCodeView.as_view(), name="phone-number-code"),
    path("number/resend/", NumberResendView.as_view(), name="phone-number-resend"),
    # As django_idenfy_phone.urls, but a start asks for the password first.
    path("phone/start/", NumberStartView.as_view(), name="phone-start"),
    path("phone/current/", CurrentView.as_view(), name="phone-current"),
    path(DETAIL, StatusView.as_view(), name="phone-detail"),
    path(f"{DETAIL}confirm/", ConfirmView.as_view(), name="phone-confirm"),
    path("admin/", admin.site.urls),
    # "insecure" as DEBUG is off. On a real site the web server serves static files.
    path("static/<path:path>", serve, {"insecure": True}),
]
