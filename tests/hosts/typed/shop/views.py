import uuid
from datetime import datetime, timedelta
from typing import assert_type

from django.http import HttpRequest, JsonResponse
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from django_idenfy_phone import services
from django_idenfy_phone.api.views import StartView
from django_idenfy_phone.exceptions import CooldownActive, VerificationError
from django_idenfy_phone.models import PhoneVerification


class SignUpStartView(StartView):
    purpose = "signup"
    authentication_classes = (SessionAuthentication,)

    def post(self, request: Request, *args: object, **kwargs: object) -> Response:
        response = super().post(request, *args, **kwargs)
        response["X-Shop"] = "signup"
        return response


def start(request: HttpRequest) -> JsonResponse:
    """A start without Django REST framework."""
    try:
        row = services.start_for_request(
            request,
            request.POST["phone_number"],
            purpose="change",
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
    except CooldownActive as error:
        assert_type(error.verification_id, uuid.UUID | None)
        return JsonResponse({"detail": str(error)}, status=429)
    except VerificationError as error:
        assert_type(error.code, str)
        assert_type(error.retry_after, timedelta | None)
        return JsonResponse({"code": error.code}, status=400)
    assert_type(row, PhoneVerification)
    assert_type(row.is_repeated, bool)
    assert_type(services.resend_at(row, user=request.user), datetime)
    return JsonResponse({"id": str(row.pk)})
