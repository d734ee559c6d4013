from django.urls import include, path
from rest_framework_simplejwt.views import TokenObtainPairView

from django_idenfy_phone.api.views import StartView
from hosts.recipes.allauth_signup import PhoneSignupView

urlpatterns = [
    path("phone/", include("django_idenfy_phone.urls")),
    path("signup/phone/", StartView.as_view(purpose="signup")),
    path("accounts/signup/", PhoneSignupView.as_view()),
    path("accounts/", include("allauth.urls")),
    path("registration/", include("dj_rest_auth.registration.urls")),
    path("token/", TokenObtainPairView.as_view()),
]
