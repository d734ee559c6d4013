"""Answers for forms and for the pages' script, which asks for JSON."""

from typing import Any

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from django_idenfy_phone.api.serializers import VerificationSerializer
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification

from .. import texts


def wants_json(request: HttpRequest) -> bool:
    return request.headers.get("Accept") == "application/json"


def go_to(request: HttpRequest, page: str, status: int = 200) -> HttpResponseBase:
    if wants_json(request):
        return JsonResponse({"next": reverse(page)}, status=status)
    return redirect(page)


def refuse(
    request: HttpRequest, page: str, code: str, wait: float | None = None
) -> HttpResponseBase:
    """Say why, as JSON or at the page, which a form is redirected to.

    A redirect, so that a reload does not post again.
    """
    text = texts.text_of_code(code, wait)
    if wants_json(request):
        status = 404 if code == "not_found" else 409
        body = {"detail": text, "code": code, "next": reverse(page)}
        if wait is not None:
            body["retry_after"] = wait
        return JsonResponse(body, status=status)
    messages.error(request, text)
    return redirect(page)


def refuse_as(
    request: HttpRequest, page: str, error: VerificationError
) -> HttpResponseBase:
    wait = error.retry_after.total_seconds() if error.retry_after else None
    return refuse(request, page, error.code, wait)


def show_form(
    request: HttpRequest, template: str, form: Form, context: dict[str, Any]
) -> HttpResponse:
    """The page of a form, or its errors as JSON."""
    if wants_json(request):
        return JsonResponse({"errors": form.errors}, status=400)
    return render(request, template, {"form": form, **context})


def as_json(row: PhoneVerification) -> dict[str, Any]:
    """What the API shows of a verification, less what leads to it."""
    data = dict(VerificationSerializer().to_representation(row))
    del data["id"], data["url"]
    return data
