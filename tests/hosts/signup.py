"""A host project whose sign-up requires a verified number."""

from django import forms
from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpResponse
from django.urls import include, path
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.response import Response
from rest_framework.views import APIView

from django_idenfy_phone import services
from django_idenfy_phone.api.fields import VerifiedPhoneField
from django_idenfy_phone.api.views import StartView
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.forms import VerifiedPhoneField as VerifiedPhoneFormField

PURPOSE = "signup"


def captcha(request, phone_number):
    """A start guard, as a captcha library would write it."""
    if request.data.get("captcha") != "solved":
        raise PermissionDenied("Please solve the captcha.", code="captcha_failed")


def sign_up(username, proof):
    """Save the user and redeem the proof in one transaction."""
    with transaction.atomic():
        user = get_user_model().objects.create_user(username)
        services.redeem_verification(proof, user=user, purpose=PURPOSE)
        return user


class SignUpSerializer(serializers.Serializer):
    username = serializers.RegexField("^[a-z0-9]{3,20}$")
    phone = VerifiedPhoneField(purpose=PURPOSE)


class SignUpView(APIView):
    permission_classes = ()

    def post(self, request):
        form = SignUpSerializer(data=request.data, context={"request": request})
        form.is_valid(raise_exception=True)
        proof = form.validated_data["phone"]
        try:
            user = sign_up(form.validated_data["username"], proof)
        except VerificationError as error:
            raise ValidationError({"phone": [error.message]}, error.code) from error
        return Response({"id": user.pk}, status=201)


class SignUpForm(forms.Form):
    username = forms.RegexField("^[a-z0-9]{3,20}$")
    phone = VerifiedPhoneFormField(purpose=PURPOSE)


def sign_up_page(request):
    form = SignUpForm(request.POST or None)
    form.fields["phone"].user = request.user
    if form.is_valid():
        user = sign_up(form.cleaned_data["username"], form.cleaned_data["phone"])
        return HttpResponse(user.pk, status=201)
    return HttpResponse(form.as_p())


urlpatterns = [
    path("start/", StartView.as_view(purpose=PURPOSE)),
    path("phone/", include("django_idenfy_phone.urls")),
    path("sign-up/", SignUpView.as_view()),
    path("sign-up-page/", sign_up_page),
]
