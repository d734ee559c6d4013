import re
import uuid
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

from django.db import InternalError, OperationalError, connections
from django.http import HttpRequest, HttpResponseBase
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.encoding import escape_uri_path
from django.utils.http import escape_leading_slashes
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from .. import services
from ..checking import RETRY_SOON
from ..conf import conf
from ..edge import hide_values
from ..exceptions import ProviderUnavailable, VerificationError, VerificationNotFound
from ..models import PhoneVerification
from ..network import client_network
from ..starting import StartRequest
from ..transactions import is_definite_abort
from .errors import STATUS, add_code, log_as_warning, to_api_exception
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

    def dispatch(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        try:
            return super().dispatch(request, *args, **kwargs)
        except BaseException:
            # Error trackers send the body too, which holds a number or a code.
            self.request._full_data = {}  # type: ignore[attr-defined]
            raise

    def handle_exception(self, exc: Exception) -> Response:
        # InsideTransaction has no status: a mistake of the developer stays a 500.
        is_database = isinstance(exc, OperationalError | InternalError)
        if is_database and is_definite_abort(exc):
            exc = ProviderUnavailable(retry_after=RETRY_SOON)
        is_ours = False
        if isinstance(exc, VerificationError) and type(exc) in STATUS:
            exc, is_ours = to_api_exception(exc), True
        response = super().handle_exception(exc)
        add_code(response)
        if is_ours:
            log_as_warning(response, self.request)
        return response

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        add_never_cache_headers(final)
        return final

    def data_of(self, row: PhoneVerification) -> dict[str, Any]:
        return VerificationSerializer(row, context={"request": self.request}).data


class StartView(VerificationView):
    """POST {"phone_number"}: 202 and the verification, to be polled until sent.

    A caller without a login also gets the "redeem_token"; no other answer holds it.
    With an Idempotency-Key that was used within a day: 200 and that verification.
    """

    purpose = ""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        start = StartRequest.build(
            _validated(StartSerializer, request, "phone_number"),
            user=request.user,
            network=client_network(request),
            purpose=self.purpose,
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        guard = partial(run_guard, request, start)
        row, is_new = services.start_or_repeat(start, guard=guard)
        data = self.data_of(row)
        if row.is_anonymous:
            data["redeem_token"] = services.redeem_token(row)
        url = StatusView.url_of(request, row.pk)
        headers = {"Location": url} if url else None
        return Response(data, 202 if is_new else 200, headers=headers)


def run_guard(request: Request, start: StartRequest) -> None:
    """Call the host's START_GUARD, which raises to refuse a start."""
    if conf.START_GUARD:
        conf.START_GUARD(request, start.phone_number)


@hide_values
def _validated(serializer_class: Any, request: Request, name: str) -> Any:
    """Validate the body and return one field of it.

    Error trackers would store the serializer, with the data in its representation.
    """
    serializer = serializer_class(data=request.data)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data[name]


class StatusView(VerificationView):
    """GET: 200 and the verification."""

    def get(
        self, request: Request, verification_id: object, *args: Any, **kwargs: Any
    ) -> Response:
        row = services.get_verification(_parse_id(verification_id), user=request.user)
        return Response(self.data_of(row))

    @classmethod
    def url_of(cls, request: Request, pk: uuid.UUID) -> str | None:
        """Where the mount that answers this start shows the verification.

        None for a host that routes the start view alone, without our urls.
        """
        # Beside the start, as in our urls: two mounts may share one namespace.
        if cls._is_at(f"{request.path_info.removesuffix('start/')}{pk}/"):
            path = f"{request.path.removesuffix('start/')}{pk}/"
            return escape_leading_slashes(escape_uri_path(path))
        match = request.resolver_match
        space, captured = (match.namespaces, match.kwargs) if match else ([], {})
        ours = ["django_idenfy_phone", "detail"]
        names = [[*space, "detail"], [*space, *ours], ours] if space else [ours]
        for name, kwargs in product(names, [captured, {}]):
            with suppress(NoReverseMatch):
                return reverse(":".join(name), kwargs={**kwargs, "verification_id": pk})
        return None

    @classmethod
    def _is_at(cls, path: str) -> bool:
        """Whether this path, without the prefix of WSGI, leads to a status view."""
        try:
            view: Any = resolve(path).func
        except Resolver404:
            return False
        return issubclass(getattr(view, "cls", object), cls)


class ConfirmView(VerificationView):
    """POST {"code"}: 200 and the verification, ``is_verified`` true or false."""

    def post(
        self, request: Request, verification_id: object, *args: Any, **kwargs: Any
    ) -> Response:
        pk = _parse_id(verification_id)
        row = services.confirm_verification(
            pk, _validated(ConfirmSerializer, request, "code"), user=request.user
        )
        return Response(self.data_of(row))


def _parse_id(value: object) -> uuid.UUID:
    # Text, or what the converter of a host's own route made of it.
    text = str(value)
    # uuid.UUID would also take braces, "urn:uuid:" and missing hyphens.
    if not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text):
        raise VerificationNotFound
    return uuid.UUID(text)
