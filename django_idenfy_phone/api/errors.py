"""One table from domain error to HTTP status."""

import math
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.log import log_response
from rest_framework.exceptions import APIException, ErrorDetail

from .. import exceptions as domain

STATUS: dict[type[domain.VerificationError], int] = {
    domain.NumberNotSupported: 400,
    domain.InvalidCode: 400,
    domain.InvalidIdempotencyKey: 400,
    domain.UnknownUser: 403,
    domain.VerificationNotFound: 404,
    domain.NotSentYet: 409,
    domain.CheckInProgress: 409,
    domain.NumberTaken: 409,
    domain.VerificationExpired: 410,
    domain.VerificationLocked: 410,
    domain.VerificationFailed: 410,
    domain.IdempotencyKeyReused: 422,
    domain.CooldownActive: 429,
    domain.LimitReached: 429,
    domain.ProviderUnavailable: 503,
    domain.CheckUnknown: 503,
}


def to_api_exception(error: domain.VerificationError) -> APIException:
    exception = APIException(detail=str(error.message), code=error.code)
    exception.status_code = STATUS[type(error)]
    if error.retry_after is not None:
        # DRF's handler turns it into the header.
        exception.wait = max(1, math.ceil(error.retry_after.total_seconds()))  # type: ignore[attr-defined]
    return exception


def add_code(response: HttpResponseBase, more: Mapping[str, Any]) -> None:
    """Add ``code``, ``retry_after`` and ``more`` to ``{"detail": text}``.

    To nothing else: the envelope of a host stays as it is. ``retry_after`` repeats the
    header, which a cross-origin script cannot read.
    """
    # A host's EXCEPTION_HANDLER may return a response of Django, which has no data.
    data = getattr(response, "data", None)
    if not (isinstance(data, dict) and list(data) == ["detail"]):
        return
    if isinstance(data["detail"], ErrorDetail):
        data["code"] = data["detail"].code
        # A host's EXCEPTION_HANDLER may have written a date.
        if response.headers.get("Retry-After", "").isdecimal():
            data["retry_after"] = int(response.headers["Retry-After"])
        data.update(more)


def log_as_warning(response: HttpResponse, request: HttpRequest) -> None:
    """Log an expected 5xx as Django logs a 4xx.

    Django itself would log it at ERROR, and mail it to ADMINS.
    """
    if response.status_code >= 500:
        reason, path = response.reason_phrase, request.path
        log_response(
            "%s: %s", reason, path, response=response, request=request, level="warning"
        )
