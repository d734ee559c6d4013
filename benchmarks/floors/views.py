"""Bare views that do the least. No limits, no validation, no guarantee."""

import threading

import requests
from django.conf import settings
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from .models import FloorRow
from .tasks import do_nothing

# One session a thread: its connection is kept.
local = threading.local()


class StartFloor(APIView):
    """One INSERT and one ``.delay``."""

    permission_classes = (IsAuthenticated,)

    def post(self, request: Request) -> Response:
        row = FloorRow.objects.create(phone_number=request.data["phone_number"])
        do_nothing.delay(row.pk)
        return Response({"id": row.pk, "status": row.status}, 202)


class ConfirmFloor(APIView):
    """One pooled HTTP call and one UPDATE."""

    permission_classes = (IsAuthenticated,)

    def post(self, request: Request, pk: int) -> Response:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        answer = local.session.post(
            f"{settings.IDENFY_PHONE_API_URL}/fraud/verify-sms",
            json={"request_id": "0" * 32, "received_code": request.data["code"]},
            auth=(settings.IDENFY_PHONE_API_KEY, settings.IDENFY_PHONE_API_SECRET),
            timeout=12,
        )
        is_verified = answer.json()["is_verified"]
        status = "verified" if is_verified else "sent"
        FloorRow.objects.filter(pk=pk).update(status=status)
        return Response({"id": pk, "is_verified": is_verified})
