"""A host project of plain Django forms: no view of REST framework starts."""

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import path

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import VerificationError


class StartForm(forms.Form):
    phone_number = forms.CharField()
    key = forms.CharField(required=False, empty_value=None)


def captcha(request, phone_number):
    """A start guard for forms."""
    if request.POST.get("captcha") != "solved":
        raise PermissionDenied("Please solve the captcha.")


def start_page(request):
    form = StartForm(request.POST)
    if form.is_valid():
        try:
            row = services.start_for_request(
                request,
                form.cleaned_data["phone_number"],
                purpose="form",
                idempotency_key=form.cleaned_data["key"],
            )
            return HttpResponse(row.pk, status=200 if row.is_repeated else 201)
        except VerificationError as error:
            form.add_error("phone_number", str(error))
    return HttpResponse(form.as_p())


urlpatterns = [path("start/", start_page)]
