"""Bare views that do the least. No limits, no validation, no guarantee."""

import threading
from typing import Any

import requests
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from . import idenfy
from .models import FloorRow
from .tasks import do_nothing

# One session a thread: its connection is kept.
local = threading.local()


class StartFloor(APIView):
    """One INSERT and one ``.delay``."""

    permission_classes = (IsAuthenticated,)

    def post(self, request: Request) -> Response:
        body: Any = request.data
        row = FloorRow.objects.create(phone_number=body["phone_number"])
        do_nothing.delay(row.pk)
        return Response({"id": row.pk, "status": row.status}, 202)


class ConfirmFloor(APIView):
    """One pooled HTTP call and one UPDATE."""

    permission_classes = (IsAuthenticated,)

    def post(self, request: Request, pk: int) -> Response:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        body: Any = request.data
        check = {"request_id": "0" * 32, "received_code": body["code"]}
        answer = idenfy.ask("/fraud/verify-sms", check, local.session)
        status = "verified" if answer["is_verified"] else "sent"
        FloorRow.objects.filter(pk=pk).update(status=status)
        return Response({"id": pk, "is_verified": answer["is_verified"]})
