"""Each public call as a host makes it: checked by mypy, and run by Django's runner."""

from datetime import datetime, timedelta
from typing import assert_type

from django.test import TransactionTestCase

from django_idenfy_phone import services, testing
from django_idenfy_phone.forms import VerifiedPhoneField
from django_idenfy_phone.health import Health, health
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.phone import PhoneNumber
from django_idenfy_phone.testing import Sandbox, sandbox

from .forms import ChangeForm
from .models import Customer, Loss, keep, number_of, release
from .serializers import SignUpSerializer

NUMBER = "+37061234567"


class Calls(TransactionTestCase):
    def setUp(self) -> None:
        self.user = Customer.objects.create_user("ona")
        self.sandbox = assert_type(self.enterContext(sandbox()), Sandbox)

    def test_services(self) -> None:
        row = services.start_verification(NUMBER, user=self.user)
        assert_type(row, PhoneVerification)
        row = services.get_verification(row.pk, user=self.user)
        assert_type(row, PhoneVerification)
        assert_type(row.is_verified, bool)
        assert_type(row.phone_number, PhoneNumber)
        assert_type(row.purpose, str)
        assert_type(row.user, Customer | None)
        assert_type(row.verified_at, datetime | None)
        assert_type(services.get_current(user=self.user), PhoneVerification)
        assert_type(services.resend_at(row, user=self.user), datetime)
        assert_type(services.release_brake("LT"), bool)
        code = assert_type(self.sandbox.code_for(NUMBER), str)
        assert_type([each.phone_number for each in self.sandbox.sent], list[str])
        proven = services.confirm_verification(row.pk, code, user=self.user)
        assert_type(proven, PhoneVerification)
        self.user.refresh_from_db()
        assert number_of(self.user) == NUMBER
        assert "Verified" in self.user.first_name
        proofs = PhoneVerification.objects.verified(user=self.user, phone_number=NUMBER)
        assert_type(proofs.get(), PhoneVerification)

    def test_ownership(self) -> None:
        row = testing.verify_number(self.user, NUMBER, purpose="change")
        assert_type(row, PhoneVerification)
        assert keep(self.user, row) is True
        release(self.user)
        assert Loss.objects.get().phone_number == NUMBER

    def test_sign_up(self) -> None:
        row = testing.verify_number(None, NUMBER, purpose="signup")
        token = assert_type(services.redeem_token(row), str)
        proof = services.get_proof(token, user=None, purpose="signup")
        assert_type(proof, PhoneVerification)
        serializer = SignUpSerializer(data={"username": "rasa", "phone": token})
        serializer.is_valid(raise_exception=True)
        customer = assert_type(serializer.save(), Customer)
        assert number_of(customer) == NUMBER

    def test_form(self) -> None:
        row = testing.verify_number(self.user, NUMBER, purpose="change")
        form = ChangeForm({"phone": str(row.pk)}, user=self.user)
        assert form.is_valid() is True
        proof = VerifiedPhoneField(purpose="change", user=self.user).clean(row.pk)
        assert assert_type(proof, PhoneVerification | None) == row

    def test_views(self) -> None:
        self.client.force_login(self.user)
        body = {"phone_number": NUMBER}
        assert self.client.post("/change/phone/", body).status_code == 200
        services.unblock(phone_number=NUMBER)
        started = self.client.post("/signup/phone/", body, "application/json")
        assert (started.status_code, started["X-Shop"]) == (202, "signup")

    def test_operators(self) -> None:
        state = assert_type(health(), Health)
        assert_type(state.queued, int)
        assert_type(state.oldest_queued, timedelta | None)
        assert state.outcomes == {}
