"""The testing kit, inside Django's TestCase and outside of it."""

from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.test import TestCase, TransactionTestCase
from django.utils import timezone

from django_idenfy_phone import services, testing
from django_idenfy_phone.exceptions import (
    CooldownActive,
    LimitReached,
    NumberNotSupported,
    ProviderUnavailable,
    VerificationExpired,
)
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_verified
from support.constants import NUMBER
from support.steps import outcome, start

OTHER_NUMBER, THIRD_NUMBER = "+37061234568", "+37061234569"


class SandboxSteps:
    """Run below in both kinds of Django's test cases."""

    def setUp(self):
        self.user = get_user_model().objects.create_user("ona")
        self.sandbox = self.enterContext(testing.sandbox())

    def confirm(self, row, code):
        return services.confirm_verification(row.pk, code, user=self.user)

    def test_right_code_verifies(self):
        row = start(self.user)
        confirmed = self.confirm(row, self.sandbox.code_for(NUMBER))
        assert confirmed.is_verified

    def test_sent_holds_each_sms_oldest_first(self):
        assert self.sandbox.sent == []
        start(self.user)
        start(self.user, OTHER_NUMBER)
        numbers = [message.phone_number for message in self.sandbox.sent]
        assert numbers == [NUMBER, OTHER_NUMBER]

    def test_fail_next_fails_the_next_send_only(self):
        self.sandbox.fail_next("BAD_VALUE")
        refused, row = start(self.user), start(self.user, OTHER_NUMBER)
        with pytest.raises(LookupError):
            self.sandbox.code_for(NUMBER)
        assert (outcome(refused), outcome(row)) == ("number_refused", "sent")

    def test_fail_next_fails_a_check(self):
        row = start(self.user)
        code = self.sandbox.code_for(NUMBER)
        self.sandbox.fail_next("TOO_MANY_REQUESTS")
        with pytest.raises(ProviderUnavailable):
            self.confirm(row, code)

    def test_expired_code_is_too_late(self):
        row = start(self.user)
        self.sandbox.expire(NUMBER)
        with pytest.raises(VerificationExpired):
            self.confirm(row, self.sandbox.code_for(NUMBER))

    def test_verified_number_runs_receivers(self):
        calls = []

        def note(verification, user, **kwargs):
            calls.append((verification, user))

        phone_verified.connect(note)
        self.addCleanup(phone_verified.disconnect, note)
        row = testing.verify_number(self.user, NUMBER)
        assert calls == [(row, self.user)]


class TestInsideTestCase(SandboxSteps, TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.other = get_user_model().objects.create_user("rasa")
        cls.proof = testing.verify_number(cls.other, THIRD_NUMBER, purpose="login")

    def test_number_can_be_verified_in_set_up_test_data(self):
        proofs = PhoneVerification.objects.verified(
            user=self.other, phone_number=THIRD_NUMBER
        )
        assert list(proofs) == [self.proof]


class TestOutsideOfTransactions(SandboxSteps, TransactionTestCase):
    pass


def test_settings_are_as_before_after_the_sandbox(settings):
    settings.IDENFY_PHONE_API_URL = "https://before.example"
    with testing.sandbox() as sandbox:
        assert sandbox.url == django_settings.IDENFY_PHONE_API_URL
    assert django_settings.IDENFY_PHONE_API_URL == "https://before.example"


@pytest.mark.django_db(transaction=True)
def test_starts_of_the_test_before_are_not_counted(user, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"site": ("1/d",)}
    for _ in range(2):
        with testing.sandbox():
            start(user)
            PhoneVerification.objects.all().delete()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("idenfy_sandbox")
def test_starts_of_this_test_are_counted(user, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"site": ("1/d",)}
    start(user)
    with pytest.raises(LimitReached):
        start(user, OTHER_NUMBER)


@pytest.mark.django_db
def test_cooldown_is_over_when_the_code_has_expired(user, idenfy_sandbox):
    start(user)
    with pytest.raises(CooldownActive):
        start(user)
    idenfy_sandbox.expire(NUMBER)
    start(user)
    assert len(idenfy_sandbox.sent) == 2


@pytest.mark.django_db
def test_number_without_a_start_cannot_expire(idenfy_sandbox):
    with pytest.raises(PhoneVerification.DoesNotExist):
        idenfy_sandbox.expire(NUMBER)


def stored(row):
    """The values of a row; a time as its distance from the first, in minutes."""
    row.refresh_from_db()
    values = {f.attname: getattr(row, f.attname) for f in row._meta.concrete_fields}
    minute = timedelta(minutes=1)
    for name, value in values.items():
        if hasattr(value, "tzinfo"):
            values[name] = round((value - row.created_at) / minute)
    # The first differs by a reserve for clocks that differ, the others by chance.
    chance = {"next_send_at", "id", "phone_number", "number_block", "request_id"}
    return {name: value for name, value in values.items() if name not in chance}


@pytest.mark.django_db
def test_verified_number_is_stored_as_a_confirmed_one(user, idenfy_sandbox):
    row = start(user, purpose="login")
    code = idenfy_sandbox.code_for(NUMBER)
    confirmed = services.confirm_verification(row.pk, code, user=user)
    made = testing.verify_number(user, OTHER_NUMBER, purpose="login")
    assert stored(made) == stored(confirmed)


@pytest.mark.django_db
def test_visitors_verified_number_can_be_redeemed(user):
    row = testing.verify_number(None, NUMBER, purpose="signup")
    token = services.redeem_token(row)
    proof = services.get_proof(token, user=None, purpose="signup")
    services.redeem_verification(proof, user=user, purpose="signup")
    assert PhoneVerification.objects.get().user == user


@pytest.mark.django_db
def test_verified_number_has_no_limit(user):
    rows = [testing.verify_number(user, NUMBER) for _ in range(20)]
    assert {row.verified_at <= timezone.now() for row in rows} == {True}


@pytest.mark.django_db
def test_unsupported_number_cannot_be_verified(user):
    with pytest.raises(NumberNotSupported):
        testing.verify_number(user, "+4930123456")
