from typing import Any

from rest_framework import serializers

from ..exceptions import NumberTaken
from ..models import PhoneVerification
from ..statuses import Failure
from .fields import CodeField, PhoneNumberField, UTCDateTimeField

# What helps the user, and what else is told: the true reason is for the admin.
PUBLIC_FAILURES = {
    Failure.NUMBER_REFUSED: "number_refused",
    Failure.UNKNOWN: "maybe_sent",
}
OTHER_FAILURE = "not_sent"


class StartSerializer(serializers.Serializer[Any]):
    phone_number = PhoneNumberField()


class ConfirmSerializer(serializers.Serializer[Any]):
    code = CodeField()


class VerificationSerializer(serializers.Serializer[PhoneVerification]):
    """What a client may know of a verification."""

    id = serializers.UUIDField()
    url = serializers.CharField(allow_null=True, read_only=True)
    status = serializers.CharField()
    is_verified = serializers.BooleanField()
    phone_number = serializers.CharField(source="masked_number")
    purpose = serializers.CharField()
    checks_left = serializers.IntegerField()
    code_spent = serializers.BooleanField()
    created_at = UTCDateTimeField()
    expires_at = UTCDateTimeField(allow_null=True)
    resend_at = UTCDateTimeField()
    failure = serializers.SerializerMethodField()

    def get_failure(self, row: PhoneVerification) -> str | None:
        if row.number_taken:
            return NumberTaken.code
        if not row.failure:
            return None
        return PUBLIC_FAILURES.get(Failure(row.failure), OTHER_FAILURE)
