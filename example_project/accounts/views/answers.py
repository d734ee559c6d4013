"""Answers for forms and for the pages' script, which asks for JSON."""

import math
from typing import Any

from django.contrib import messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render, resolve_url

from django_idenfy_phone.api.serializers import VerificationSerializer
from django_idenfy_phone.models import PhoneVerification

from .. import texts
from ..visits import state_of


def wants_json(request: HttpRequest) -> bool:
    return request.headers.get("Accept") == "application/json"


def go_to(request: HttpRequest, page: str) -> HttpResponseBase:
    if wants_json(request):
        return JsonResponse({"next": resolve_url(page)})
    return redirect(page)


def refuse(
    request: HttpRequest, page: str, code: str, wait: float | None = None
) -> HttpResponseBase:
    """Say why, as JSON or at the page, which a form is redirected to.

    A redirect, so that a reload does not post again.
    """
    text = texts.text_of_code(code, wait)
    if wants_json(request):
        body = {"detail": text, "code": code}
        if wait is not None:
            body["retry_after"] = math.ceil(wait)
        return JsonResponse(body, status=409)
    messages.error(request, text, extra_tags=code)
    return redirect(page)


def send_back(request: HttpRequest, page: str, code: str) -> HttpResponseBase:
    """Go to an earlier page, which says why."""
    messages.error(request, texts.text_of_code(code))
    return go_to(request, page)


def refuse_as(
    request: HttpRequest, page: str, error: texts.StartError
) -> HttpResponseBase:
    return refuse(request, page, *texts.code_and_wait(error))


def show_form(
    request: HttpRequest, template: str, form: Form, context: dict[str, Any]
) -> HttpResponse:
    """The page of a form, or its errors as JSON."""
    if wants_json(request):
        return JsonResponse({"errors": form.errors}, status=400)
    return render(request, template, {"form": form, **context})


def as_json(row: PhoneVerification) -> dict[str, Any]:
    """What the API shows of a verification, less what leads to it, and its state."""
    data = dict(VerificationSerializer().to_representation(row))
    data["state"] = state_of(row)
    del data["id"], data["url"]
    return data
