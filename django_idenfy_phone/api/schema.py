"""What drf-spectacular writes of the API. Imported only where that app is installed.

All names of components begin with "IdenfyPhone", and each enum is a component of its
own: one in a property would take part in drf-spectacular's naming of the host's enums.
"""

from collections import defaultdict
from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
    extend_schema_serializer,
    extend_schema_view,
)
from rest_framework import exceptions as rest
from rest_framework import serializers

from .. import exceptions as domain
from ..statuses import Status
from .errors import STATUS
from .fields import CodeField, PhoneNumberField, VerifiedPhoneField
from .parsers import BodyTooLarge
from .serializers import (
    OTHER_FAILURE,
    PUBLIC_FAILURES,
    ConfirmSerializer,
    StartSerializer,
    VerificationSerializer,
)

FAILURES = [*PUBLIC_FAILURES.values(), OTHER_FAILURE, domain.NumberTaken.code]

# Also for serializers of the host, such as that of a sign-up.
extend_schema_field({"type": "string", "example": "+37060012345"})(PhoneNumberField)
extend_schema_field({"type": "string", "example": "0042"})(CodeField)
extend_schema_field(OpenApiTypes.STR)(VerifiedPhoneField)


@extend_schema_field(
    {"type": "string", "enum": Status.values}, component_name="IdenfyPhoneStatus"
)
class StatusField(serializers.CharField):
    pass


@extend_schema_field(
    {"type": "string", "enum": FAILURES},
    component_name="IdenfyPhoneFailure",
)
class FailureField(serializers.CharField):
    pass


@extend_schema_serializer(component_name="IdenfyPhoneStart")
class Start(StartSerializer):
    pass


@extend_schema_serializer(component_name="IdenfyPhoneConfirm")
class Confirm(ConfirmSerializer):
    pass


@extend_schema_serializer(component_name="IdenfyPhoneVerification")
class Verification(VerificationSerializer):
    status = StatusField()
    failure = FailureField(allow_null=True)  # type: ignore[assignment]


@extend_schema_serializer(component_name="IdenfyPhoneStarted")
class Started(Verification):
    redeem_token = serializers.CharField(
        required=False, help_text="Only for a start without a login."
    )


Errors = tuple[type[domain.VerificationError | rest.APIException], ...]

LOGIN: Errors = (
    rest.NotAuthenticated,
    rest.AuthenticationFailed,
    rest.PermissionDenied,
    domain.UnknownUser,
)
ANY_CALL: Errors = (*LOGIN, rest.NotAcceptable, rest.Throttled)
ANY_BODY: Errors = (rest.ParseError, BodyTooLarge, rest.UnsupportedMediaType)
ANY_ROW: Errors = (domain.VerificationNotFound, domain.ProviderUnavailable)
OF_START: Errors = (
    domain.InvalidIdempotencyKey,
    domain.IdempotencyKeyReused,
    domain.CooldownActive,
    domain.LimitReached,
    domain.ProviderUnavailable,
)
OF_CHECK: Errors = (
    domain.NotSentYet,
    domain.CheckInProgress,
    domain.NumberTaken,
    domain.VerificationExpired,
    domain.VerificationLocked,
    domain.VerificationFailed,
    domain.CheckUnknown,
)
# Where classes or functions of the host may answer too, with codes of their own.
HOST_STATUSES = {400, 401, 403, 429}
WAIT_STATUSES = {409, 429, 503}
FIELD_ERRORS = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
}
# Of a verification that is under way: see StartRefused.
LINKS: dict[str, Any] = {
    "id": {"type": "string", "format": "uuid"},
    "url": {"type": "string", "nullable": True},
}

ROW_ID = OpenApiParameter("verification_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
RETRY_AFTER = OpenApiParameter(
    "Retry-After",
    {"type": "integer", "minimum": 1},
    OpenApiParameter.HEADER,
    description="In so many seconds a repetition makes sense.",
    response=sorted(WAIT_STATUSES),
)
LOCATION = OpenApiParameter(
    "Location",
    OpenApiTypes.URI_REF,
    OpenApiParameter.HEADER,
    description="The path of the verification.",
    response=[200, 202],
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 16, "maxLength": 64},
    OpenApiParameter.HEADER,
    description="Of visible ASCII. With a login, a repetition of the same key within "
    "a day answers with the first verification. Without one it is ignored.",
)


def responses_of(*errors: type[Any]) -> dict[int, OpenApiResponse]:
    """One response for each status of these errors, with their codes."""
    codes = defaultdict(list)
    for error in errors:
        if issubclass(error, domain.VerificationError):
            codes[STATUS[error]].append(error.code)
        else:
            codes[error.status_code].append(error.default_code)
    # DRF answers 403 where the first authentication class has no WWW-Authenticate.
    codes[403] += codes[401]
    return {status: _response(status, codes[status]) for status in codes}


def _response(status: int, codes: list[str]) -> OpenApiResponse:
    names = ", ".join(sorted(codes))
    code: dict[str, Any] = {"type": "string", "description": names}
    if status not in HOST_STATUSES:
        code["enum"] = sorted(codes)
    properties: dict[str, Any] = {"detail": {"type": "string"}, "code": code}
    if status in WAIT_STATUSES:
        properties["retry_after"] = {"type": "integer", "minimum": 1}
    if domain.CooldownActive.code in codes:
        properties |= LINKS
    body: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": ["detail", "code"],
    }
    if status == 400:
        body = {"anyOf": [body, FIELD_ERRORS]}
    return OpenApiResponse(body, description=names)


class Extension(OpenApiViewExtension):
    """Documents the one method of a view of ours, and of the host's subclasses."""

    match_subclasses = True
    method: str
    schema: dict[str, Any]

    def view_replacement(self) -> Any:
        """A subclass with the schema: the view itself stays as it is."""
        documented = type(self.target.__name__, (self.target,), {})
        method = {self.method: extend_schema(**self.schema)}
        return extend_schema_view(**method)(documented)


class StartExtension(Extension):
    # A text: the views read REST_FRAMEWORK, and so import classes of the host.
    target_class = "django_idenfy_phone.api.views.StartView"
    method = "post"
    schema = {
        "parameters": [IDEMPOTENCY_KEY, LOCATION, RETRY_AFTER],
        "request": Start,
        "responses": {
            200: Started,
            202: Started,
            **responses_of(*ANY_CALL, *ANY_BODY, *OF_START),
        },
    }


class CurrentExtension(Extension):
    target_class = "django_idenfy_phone.api.views.CurrentView"
    method = "get"
    schema = {
        "parameters": [RETRY_AFTER],
        "responses": {200: Verification, **responses_of(*ANY_CALL, *ANY_ROW)},
    }


class StatusExtension(Extension):
    target_class = "django_idenfy_phone.api.views.StatusView"
    method = "get"
    schema = {
        "parameters": [ROW_ID, RETRY_AFTER],
        "responses": {200: Verification, **responses_of(*ANY_CALL, *ANY_ROW)},
    }


class ConfirmExtension(Extension):
    target_class = "django_idenfy_phone.api.views.ConfirmView"
    method = "post"
    schema = {
        "parameters": [ROW_ID, RETRY_AFTER],
        "request": Confirm,
        "responses": {
            200: Verification,
            **responses_of(*ANY_CALL, *ANY_BODY, *ANY_ROW, *OF_CHECK),
        },
    }
