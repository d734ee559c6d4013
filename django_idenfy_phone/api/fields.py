from datetime import UTC, datetime
from typing import Any

from rest_framework import serializers

from .. import checking, phone, services, tallies
from ..edge import hide_values
from ..exceptions import InvalidCode, NotVerified, NumberNotSupported, UnknownUser
from ..models import PhoneVerification


class PhoneNumberField(serializers.Field[phone.Number, str, str, Any]):
    """A number that a code can be sent to. What it refuses is a refused start."""

    default_error_messages = {NumberNotSupported.code: NumberNotSupported.message}

    def to_internal_value(self, data: Any) -> phone.Number:
        try:
            return phone.parse(data)
        except NumberNotSupported as error:
            purpose = self.context.get("purpose", "")
            tallies.note_refusal(error.code, error.region, purpose)
            self.fail(error.code)

    def to_representation(self, value: Any) -> str:
        return str(value)


class CodeField(serializers.Field[str, str, str, Any]):
    """A string of four digits: a JSON number cannot hold the code 0042."""

    default_error_messages = {InvalidCode.code: InvalidCode.message}

    def to_internal_value(self, data: Any) -> str:
        try:
            return checking.validate_code(data)
        except InvalidCode as error:
            self.fail(error.code)

    def to_representation(self, value: str) -> str:
        return value


class VerifiedPhoneField(serializers.Field[PhoneVerification, Any, Any, Any]):
    """Takes a redeem token; its cleaned value is the ``PhoneVerification``.

    A logged-in caller may give the id of their own verification instead; the caller is
    ``request.user`` of the serializer's context. The field is always write-only. It
    only checks: spend the proof with ``services.redeem_verification`` where you save
    the user.
    """

    default_error_messages = {NotVerified.code: NotVerified.message}

    def __init__(self, *, purpose: str = "", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "write_only": True})
        self.purpose = purpose

    @hide_values
    def to_internal_value(self, data: Any) -> PhoneVerification:
        request = self.context.get("request")
        user = request.user if request else None
        try:
            return services.get_proof(data, user=user, purpose=self.purpose)
        except (NotVerified, UnknownUser):
            # No proof can belong to a user who is not in the database.
            self.fail(NotVerified.code)


class UTCDateTimeField(serializers.DateTimeField):
    """ISO 8601 in UTC, whatever the host's TIME_ZONE, USE_TZ and formats are."""

    def to_representation(self, value: datetime) -> str:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
