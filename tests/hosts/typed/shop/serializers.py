from typing import Any

from django.db import transaction
from rest_framework import serializers

from django_idenfy_phone import services
from django_idenfy_phone.api.fields import VerifiedPhoneField
from django_idenfy_phone.models import PhoneVerification

from .models import Customer, keep


class SignUpSerializer(serializers.ModelSerializer[Customer]):
    phone = VerifiedPhoneField(purpose="signup")

    class Meta:
        model = Customer
        fields = ("username", "phone")

    def create(self, validated_data: dict[str, Any]) -> Customer:
        with transaction.atomic():
            proof: PhoneVerification = validated_data.pop("phone")
            customer = Customer.objects.create_user(**validated_data)
            row = services.redeem_verification(proof, user=customer, purpose="signup")
            keep(customer, row)
        return customer
