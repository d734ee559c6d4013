from accounts.views import ConfirmPhoneView, ProfileView
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.views import serve
from django.urls import include, path

urlpatterns = [
    path("", ProfileView.as_view(), name="profile"),
    path("confirm-phone/", ConfirmPhoneView.as_view(), name="confirm-phone"),
    path("login/", LoginView.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("phone/", include("django_idenfy_phone.urls")),
    path("admin/", admin.site.urls),
    # Works without DEBUG too. On a real site the web server serves static files.
    path("static/<path:path>", serve, {"insecure": True}),
]
