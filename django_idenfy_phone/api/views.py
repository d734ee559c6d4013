import re
import uuid
from contextlib import suppress
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

from django.db import InternalError, OperationalError, connections
from django.http import HttpRequest, HttpResponseBase
from django.urls import (
    NoReverseMatch,
    Resolver404,
    ResolverMatch,
    URLResolver,
    get_resolver,
    get_urlconf,
    reverse,
)
from django.utils.cache import add_never_cache_headers
from django.utils.encoding import escape_uri_path
from django.utils.http import escape_leading_slashes
from django.utils.translation import get_language
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from .. import services
from ..checking import RETRY_SOON
from ..edge import hide_values
from ..exceptions import (
    ProviderUnavailable,
    StartRefused,
    VerificationError,
    VerificationNotFound,
)
from ..models import PhoneVerification
from ..transactions import is_definite_abort
from .errors import STATUS, add_code, log_as_warning, to_api_exception
from .parsers import StrictJSONParser
from .permissions import MayVerify
from .serializers import ConfirmSerializer, StartSerializer, VerificationSerializer

if TYPE_CHECKING:
    from rest_framework.views import AsView, GenericView

# Built once: they hold nothing of a request.
CONFIRM, VERIFICATION = ConfirmSerializer(), VerificationSerializer()
# What a path has behind its mount, in place of the id of a verification.
TAIL = re.compile("(?<=/)((start|current|[^/]+/confirm)/)?$")
# Of version 4, as all ids are: a host's route may take no other.
ANY_ID = uuid.UUID(int=0, version=4)


class VerificationView(APIView):
    """The base of the four views. Authentication and throttles are the host's."""

    parser_classes = (StrictJSONParser,)
    permission_classes = (MayVerify,)

    @classmethod
    def as_view(cls, **initkwargs: Any) -> "AsView[GenericView]":
        view = super().as_view(**initkwargs)
        # With ATOMIC_REQUESTS an error would roll the spent check back, and allow
        # unlimited guesses. On every database, since a router may name any.
        view._non_atomic_requests = set(connections)  # type: ignore[attr-defined]
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
        is_ours, more = False, {}
        if isinstance(exc, StartRefused) and (pk := exc.verification_id):
            more = {"id": str(pk), "url": StatusView.url_of(self.request, pk)}
        if isinstance(exc, VerificationError) and type(exc) in STATUS:
            exc, is_ours = to_api_exception(exc), True
        response = super().handle_exception(exc)
        add_code(response, more)
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
        row.url = StatusView.url_of(self.request, row.pk)
        if row.resend_at is None:
            row.resend_at = services.resend_at(row, user=self.request.user)
        return VERIFICATION.to_representation(row)


class StartView(VerificationView):
    """POST {"phone_number"}: 202 and the verification, to be polled until sent.

    A caller without a login also gets the "redeem_token"; no other answer holds it.
    With an Idempotency-Key that was used within a day: 200 and that verification.
    """

    purpose = ""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        row = services.start_for_request(
            request,
            _validated(_start_serializer(self.purpose), request, "phone_number"),
            purpose=self.purpose,
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        data = self.data_of(row)
        if row.is_anonymous:
            data["redeem_token"] = services.redeem_token(row)
        headers = {"Location": data["url"]} if data["url"] else None
        return Response(data, 200 if row.is_repeated else 202, headers=headers)


# Bounded: a host's view may take its purpose from the URL.
@lru_cache
def _start_serializer(purpose: str) -> StartSerializer:
    return StartSerializer(context={"purpose": purpose})


@hide_values
def _validated(serializer: Serializer[Any], request: Request, name: str) -> Any:
    """Validate the body and return one field of it.

    Error trackers would store a serializer that was given data.
    """
    return serializer.run_validation(request.data)[name]


class StatusView(VerificationView):
    """GET: 200 and the verification."""

    def get(
        self, request: Request, verification_id: object, *args: Any, **kwargs: Any
    ) -> Response:
        row = services.get_verification(_parse_id(verification_id), user=request.user)
        return Response(self.data_of(row))

    @classmethod
    def url_of(cls, request: Request, pk: uuid.UUID) -> str | None:
        """The path at which the mount that answers this request shows the row.

        None for a host that routes other views alone, without our urls.
        """
        match = request.resolver_match
        if match and _is_status_view(match):
            return _escaped(request.path)
        # Beside this request, as in our urls: two mounts may share one namespace.
        beside = TAIL.sub(f"{ANY_ID}/", request.path_info, count=1)
        resolver, language = get_resolver(get_urlconf()), get_language()
        if _is_status_path(resolver, beside, language):
            return _escaped(TAIL.sub(f"{pk}/", request.path, count=1))
        space, captured = (match.namespaces, match.kwargs) if match else ([], {})
        ours = ["django_idenfy_phone", "detail"]
        names = [[*space, "detail"], [*space, *ours], ours] if space else [ours]
        for name, kwargs in product(names, [captured, {}]):
            with suppress(NoReverseMatch):
                return reverse(":".join(name), kwargs={**kwargs, "verification_id": pk})
        return None


# To resolve a path takes long where a host has many. Paths may depend on the language.
@lru_cache
def _is_status_path(resolver: URLResolver, path: str, language: str | None) -> bool:
    """Whether this path, without the prefix of WSGI, leads to a status view."""
    try:
        return _is_status_view(resolver.resolve(path))
    except Resolver404:
        return False


def _is_status_view(match: ResolverMatch) -> bool:
    return issubclass(getattr(match.func, "cls", object), StatusView)


def _escaped(path: str) -> str:
    return escape_leading_slashes(escape_uri_path(path))


class CurrentView(VerificationView):
    """GET: 200 and the verification that a logged-in caller was last busy with."""

    purpose = ""

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        row = services.get_current(user=request.user, purpose=self.purpose)
        return Response(self.data_of(row))


class ConfirmView(VerificationView):
    """POST {"code"}: 200 and the verification, ``is_verified`` true or false."""

    def post(
        self, request: Request, verification_id: object, *args: Any, **kwargs: Any
    ) -> Response:
        pk = _parse_id(verification_id)
        row = services.confirm_verification(
            pk, _validated(CONFIRM, request, "code"), user=request.user
        )
        return Response(self.data_of(row))


def _parse_id(value: object) -> uuid.UUID:
    # Text, or what the converter of a host's own route made of it.
    text = str(value)
    # uuid.UUID would also take braces, "urn:uuid:" and missing hyphens.
    if not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text):
        raise VerificationNotFound
    return uuid.UUID(text)
