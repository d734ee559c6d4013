import re
import uuid
from typing import Any

from django.db import OperationalError, connections
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers
from django.views.decorators.debug import sensitive_variables
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from .. import services
from ..checking import RETRY_SOON
from ..conf import conf
from ..exceptions import ProviderUnavailable, VerificationError, VerificationNotFound
from ..network import client_network
from ..starting import StartRequest
from ..transactions import is_definite_abort
from .errors import STATUS, add_code, to_api_exception
from .parsers import StrictJSONParser
from .permissions import MayVerify
from .serializers import ConfirmSerializer, StartSerializer, VerificationSerializer


class VerificationView(APIView):
    """The base of the three views. Authentication and throttles are the host's."""

    parser_classes = (StrictJSONParser,)
    permission_classes = (MayVerify,)

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        view: Any = super().as_view(**initkwargs)
        # With ATOMIC_REQUESTS an error would roll the spent check back, and allow
        # unlimited guesses. On every database, since a router may name any.
        view._non_atomic_requests = set(connections)
        return view

    def handle_exception(self, exc: Exception) -> Response:
        # InsideTransaction has no status: a mistake of the developer stays a 500.
        if isinstance(exc, OperationalError) and is_definite_abort(exc):
            exc = ProviderUnavailable(retry_after=RETRY_SOON)
        if isinstance(exc, VerificationError) and type(exc) in STATUS:
            exc = to_api_exception(exc)
        response = super().handle_exception(exc)
        add_code(response)
        return response

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        add_never_cache_headers(final)
        return final


class StartView(VerificationView):
    """POST {"phone_number"}: 202 and the verification, to be polled until sent.

    With an Idempotency-Key that was used within a day: 200 and that verification.
    """

    purpose = ""

    @sensitive_variables("serializer")
    def post(self, request: Request) -> Response:
        serializer = StartSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        start = StartRequest.build(
            serializer.validated_data["phone_number"],
            user=request.user,
            network=client_network(request),
            purpose=self.purpose,
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        row, is_new = services.start_or_repeat(
            start, guard=lambda: run_guard(request, start.phone_number)
        )
        data = VerificationSerializer(row).data
        status = 202 if is_new else 200
        return Response(data, status=status, headers=_location(row.pk))


@sensitive_variables("phone_number")
def run_guard(request: Request, phone_number: str) -> None:
    """Call the host's START_GUARD, which raises to refuse a start."""
    if conf.START_GUARD:
        conf.START_GUARD(request, phone_number)


class StatusView(VerificationView):
    """GET: 200 and the verification."""

    def get(self, request: Request, verification_id: str) -> Response:
        row = services.get_verification(_parse_id(verification_id), user=request.user)
        return Response(VerificationSerializer(row).data)


class ConfirmView(VerificationView):
    """POST {"code"}: 200 and the verification, ``is_verified`` true or false."""

    @sensitive_variables("serializer", "code")
    def post(self, request: Request, verification_id: str) -> Response:
        pk = _parse_id(verification_id)
        serializer = ConfirmSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        code = serializer.validated_data["code"]
        row = services.confirm_verification(pk, code, user=request.user)
        return Response(VerificationSerializer(row).data)


def _parse_id(text: str) -> uuid.UUID:
    # uuid.UUID would also take braces, "urn:uuid:" and missing hyphens.
    if not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text):
        raise VerificationNotFound
    return uuid.UUID(text)


def _location(pk: uuid.UUID) -> dict[str, str]:
    try:
        return {"Location": reverse("django_idenfy_phone:detail", args=[pk])}
    except NoReverseMatch:
        # A host that routes the views by hand, without our urls.
        return {}
