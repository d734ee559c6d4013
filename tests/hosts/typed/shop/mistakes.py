"""Calls that mypy must refuse: an Any in their place makes an ignore unused."""

from django.http import HttpRequest

from django_idenfy_phone import services, testing
from django_idenfy_phone.forms import VerifiedPhoneField
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.ownership import keep_number

from .models import Customer


def mistakes(request: HttpRequest, customer: Customer, row: PhoneVerification) -> None:
    services.start_verification("+37061234567", user=customer.pk)  # type: ignore[arg-type]
    services.start_for_request(customer, "+37061234567")  # type: ignore[arg-type]
    services.get_verification(str(row.pk), user=customer)  # type: ignore[arg-type]
    services.get_current(user=request)  # type: ignore[arg-type]
    services.resend_at(row.pk, user=customer)  # type: ignore[arg-type]
    services.confirm_verification(row.pk, 42, user=customer)  # type: ignore[arg-type]
    services.redeem_token(row.pk)  # type: ignore[arg-type]
    services.get_proof("a token", user="ona")  # type: ignore[arg-type]
    services.redeem_verification(row, user="ona")  # type: ignore[arg-type]
    services.unblock(phone_number=row.phone_number)  # type: ignore[arg-type]
    keep_number(customer, row.pk)  # type: ignore[arg-type]
    testing.verify_number("ona", "+37061234567")  # type: ignore[arg-type]
    VerifiedPhoneField(user="ona")  # type: ignore[arg-type]
