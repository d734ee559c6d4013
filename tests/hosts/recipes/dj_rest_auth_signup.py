"""dj-rest-auth's registration with a proven number."""

from dj_rest_auth.registration.serializers import RegisterSerializer
from django.db import transaction
from rest_framework.exceptions import ValidationError

from django_idenfy_phone import services
from django_idenfy_phone.api.fields import VerifiedPhoneField
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.ownership import keep_number


class PhoneRegisterSerializer(RegisterSerializer):
    phone = VerifiedPhoneField(purpose="signup")

    @transaction.atomic
    def save(self, request):
        user = super().save(request)
        proof = self.validated_data["phone"]
        try:
            services.redeem_verification(proof, user=user, purpose="signup")
            keep_number(user, proof)
        except VerificationError as error:
            raise ValidationError({"phone": [str(error)]}) from error
        return user
