from typing import Any

from rest_framework import serializers

from .. import services
from ..models import PhoneVerification
from ..statuses import Failure
from .fields import CodeField, PhoneNumberField, UTCDateTimeField


class StartSerializer(serializers.Serializer[Any]):
    phone_number = PhoneNumberField()


class ConfirmSerializer(serializers.Serializer[Any]):
    code = CodeField()


class VerificationSerializer(serializers.Serializer[PhoneVerification]):
    """What a client may know of a verification."""

    id = serializers.UUIDField()
    status = serializers.CharField()
    is_verified = serializers.BooleanField()
    phone_number = serializers.CharField(source="masked_number")
    purpose = serializers.CharField()
    checks_left = serializers.IntegerField()
    code_spent = serializers.BooleanField()
    created_at = UTCDateTimeField()
    expires_at = UTCDateTimeField(allow_null=True)
    resend_at = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()

    def get_resend_at(self, row: PhoneVerification) -> str:
        request = self.context.get("request")
        moment = services.resend_at(row, user=request.user if request else None)
        return UTCDateTimeField().to_representation(moment)

    def get_failure(self, row: PhoneVerification) -> str | None:
        """Return only what helps the user: the true reason is for the admin."""
        if not row.failure:
            return None
        helpful = {
            Failure.NUMBER_REFUSED: "number_refused",
            Failure.UNKNOWN: "maybe_sent",
        }
        return helpful.get(Failure(row.failure), "not_sent")
