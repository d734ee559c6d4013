"""The fields and redeem_verification accept a valid proof and refuse all others."""

import uuid
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django import forms
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone
from rest_framework import serializers

from django_idenfy_phone import services
from django_idenfy_phone.api.fields import VerifiedPhoneField
from django_idenfy_phone.exceptions import AlreadyRedeemed, NotVerified
from django_idenfy_phone.forms import VerifiedPhoneField as VerifiedPhoneFormField
from django_idenfy_phone.models import PhoneVerification

pytestmark = pytest.mark.django_db

NOT_LOGGED_IN = [AnonymousUser(), None]
QUARTER = timedelta(minutes=15)
MICROSECOND = timedelta(microseconds=1)


# Three ways to use a proof. Each returns the row, or the code of the refusal.


def by_serializer(pk, user, purpose=""):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose=purpose)

    request = SimpleNamespace(user=user)
    form = SignUp(data={"phone": pk}, context={"request": request})
    if form.is_valid():
        return form.validated_data["phone"]
    return form.errors["phone"][0].code


def by_form(pk, user, purpose=""):
    class SignUp(forms.Form):
        phone = VerifiedPhoneFormField(purpose=purpose, user=user)

    form = SignUp({"phone": pk})
    if form.is_valid():
        return form.cleaned_data["phone"]
    return form.errors.as_data()["phone"][0].code


def by_redeeming(pk, user, purpose=""):
    try:
        row = PhoneVerification(pk=pk)
        return services.redeem_verification(row, user=user, purpose=purpose)
    except (NotVerified, AlreadyRedeemed) as error:
        return error.code


BY_FIELDS = [by_serializer, by_form]
ALL_WAYS = [*BY_FIELDS, by_redeeming]


@pytest.mark.parametrize("options", [{}, {"write_only": True}, {"write_only": False}])
def test_field_is_always_write_only(anonymous_proof, options):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose="signup", **options)

    form = SignUp(data={"phone": str(anonymous_proof.pk)})
    assert form.is_valid()
    assert (form.validated_data, form.data) == ({"phone": anonymous_proof}, {})


@pytest.mark.parametrize("use_proof", ALL_WAYS)
def test_own_proof_is_accepted(proof, user, use_proof):
    row = proof()
    accepted = use_proof(row.pk, user)
    assert isinstance(accepted, PhoneVerification)
    assert accepted == row


@pytest.mark.parametrize("use_proof", ALL_WAYS)
def test_anonymous_proof_is_accepted(anonymous_proof, other_user, use_proof):
    assert use_proof(anonymous_proof.pk, other_user, "signup") == anonymous_proof


@pytest.mark.parametrize("use_proof", BY_FIELDS)
@pytest.mark.parametrize("nobody", NOT_LOGGED_IN)
def test_anonymous_proof_is_accepted_without_a_login(
    anonymous_proof, nobody, use_proof
):
    assert use_proof(anonymous_proof.pk, nobody, "signup") == anonymous_proof


@pytest.mark.parametrize("use_proof", BY_FIELDS)
def test_field_accepts_text_or_uuid_and_does_not_redeem(proof, user, use_proof):
    row = proof()
    assert use_proof(str(row.pk), user) == use_proof(row.pk, user) == row
    row.refresh_from_db()
    assert row.redeemed_at is None


@pytest.mark.parametrize("use_proof", ALL_WAYS)
@pytest.mark.parametrize(
    "status", ["queued", "sending", "sent", "failed", "expired", "locked"]
)
def test_row_that_is_not_verified_is_refused(make, user, use_proof, status):
    row = make(status, verified_at=timezone.now())
    assert use_proof(row.pk, user) == "phone_not_verified"


@pytest.mark.parametrize("use_proof", ALL_WAYS)
def test_proof_of_another_user_is_refused(proof, other_user, use_proof):
    assert use_proof(proof().pk, other_user) == "phone_not_verified"


@pytest.mark.parametrize("use_proof", BY_FIELDS)
@pytest.mark.parametrize("nobody", NOT_LOGGED_IN)
def test_proof_of_a_user_is_refused_without_a_login(proof, nobody, use_proof):
    assert use_proof(proof().pk, nobody) == "phone_not_verified"


@pytest.mark.parametrize("use_proof", ALL_WAYS)
def test_proof_of_a_deleted_user_is_refused(proof, user, other_user, use_proof):
    row = proof()
    user.delete()
    assert use_proof(row.pk, other_user) == "phone_not_verified"


@pytest.mark.parametrize("use_proof", BY_FIELDS)
def test_anonymous_proof_with_a_user_belongs_to_that_user(
    proof, user, other_user, use_proof
):
    row = proof(is_anonymous=True)
    refusals = [use_proof(row.pk, other_user), use_proof(row.pk, None)]
    assert refusals == ["phone_not_verified", "phone_not_verified"]
    assert use_proof(row.pk, user) == row


@pytest.mark.parametrize("use_proof", BY_FIELDS)
def test_redeemed_proof_is_refused_by_a_field(proof, user, use_proof):
    row = proof(redeemed_at=timezone.now())
    assert use_proof(row.pk, user) == "phone_not_verified"


def test_redeemed_proof_is_not_redeemed_again(proof, user):
    row = proof(redeemed_at=timezone.now())
    assert by_redeeming(row.pk, user) == "already_redeemed"


def test_redeemed_row_of_a_deleted_user_is_refused(redeemed, other_user, user):
    other_user.delete()
    refusals = [use_proof(redeemed.pk, user, "signup") for use_proof in ALL_WAYS]
    assert refusals == ["phone_not_verified", "phone_not_verified", "already_redeemed"]


@pytest.mark.parametrize("use_proof", ALL_WAYS)
@pytest.mark.parametrize(
    ("proven", "wanted"), [("", "signup"), ("signup", ""), ("signup", "payment")]
)
def test_proof_of_another_purpose_is_refused(proof, user, use_proof, proven, wanted):
    row = proof(purpose=proven)
    assert use_proof(row.pk, user, wanted) == "phone_not_verified"


@pytest.mark.parametrize("use_proof", ALL_WAYS)
@pytest.mark.parametrize(
    ("age", "is_fresh"),
    [(QUARTER - MICROSECOND, True), (QUARTER, False), (timedelta(days=1), False)],
)
def test_proof_is_valid_for_15_minutes(proof, user, use_proof, age, is_fresh, clock):
    row = proof(verified_at=clock.now - age)
    assert use_proof(row.pk, user) == (row if is_fresh else "phone_not_verified")


@pytest.mark.parametrize("use_proof", ALL_WAYS)
@pytest.mark.parametrize(("minutes", "is_fresh"), [(59, True), (61, False)])
def test_redeem_within_sets_how_long_a_proof_is_valid(
    proof, user, settings, use_proof, minutes, is_fresh
):
    settings.IDENFY_PHONE_REDEEM_WITHIN = timedelta(hours=1)
    row = proof(verified_at=timezone.now() - timedelta(minutes=minutes))
    assert use_proof(row.pk, user) == (row if is_fresh else "phone_not_verified")


@pytest.mark.parametrize("use_proof", ALL_WAYS)
def test_unknown_id_is_refused(proof, user, use_proof):
    proof()
    assert use_proof(uuid.uuid4(), user) == "phone_not_verified"


def test_redeeming_one_proof_leaves_another_valid(proof, user):
    row, other = proof(), proof()
    assert by_redeeming(row.pk, user) == row
    assert by_redeeming(other.pk, user) == other


GARBAGE = ["x", "1234", "g" * 32, "1" * 400, "\0", "{}", "<b>", "' OR 1=1"]


@pytest.mark.parametrize("use_proof", BY_FIELDS)
@pytest.mark.parametrize("value", GARBAGE)
def test_field_refuses_text_that_is_not_a_uuid(user, use_proof, value):
    assert use_proof(value, user) == "invalid"


@pytest.mark.parametrize("value", [[], {}, 1.5, [str(uuid.UUID(int=7))], b"x"])
def test_serializer_field_refuses_other_types(user, value):
    assert by_serializer(value, user) == "invalid"


@pytest.mark.parametrize("value", [0, 1, True, 2**128, -1])
def test_serializer_field_refuses_numbers(user, value):
    assert by_serializer(value, user) in ("phone_not_verified", "invalid")


@pytest.mark.parametrize(
    ("use_proof", "value", "code"),
    [
        (by_serializer, None, "null"),
        (by_serializer, "", "invalid"),
        (by_form, None, "required"),
        (by_form, "", "required"),
    ],
)
def test_field_refuses_an_empty_value(user, use_proof, value, code):
    assert use_proof(value, user) == code


def test_serializer_field_can_be_optional():
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(required=False, allow_null=True)

    assert not SignUp(data={"phone": None}).fields["phone"].required
    for data in ({}, {"phone": None}):
        form = SignUp(data=data)
        assert (form.is_valid(), form.validated_data) == (True, data)


def test_serializer_field_is_required_by_default():
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField()

    form = SignUp(data={})
    assert not form.is_valid()
    assert form.errors["phone"][0].code == "required"


def test_form_field_can_be_optional():
    class SignUp(forms.Form):
        phone = VerifiedPhoneFormField(required=False)

    form = SignUp({})
    assert (form.is_valid(), form.cleaned_data) == (True, {"phone": None})


def test_serializer_without_a_request_accepts_only_anonymous_proofs(
    anonymous_proof, proof
):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose="signup")

    assert SignUp(data={"phone": anonymous_proof.pk}).is_valid()
    assert not SignUp(data={"phone": proof(purpose="signup").pk}).is_valid()


def test_serializer_field_is_write_only(anonymous_proof):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose="signup")

    form = SignUp(data={"phone": anonymous_proof.pk})
    assert (form.is_valid(), dict(form.data)) == (True, {})


def test_both_fields_refuse_with_the_same_text(user):
    class ByForm(forms.Form):
        phone = VerifiedPhoneFormField()

    class BySerializer(serializers.Serializer):
        phone = VerifiedPhoneField()

    form, serializer = (
        each(data={"phone": uuid.uuid4()}) for each in (ByForm, BySerializer)
    )
    assert not form.is_valid()
    assert not serializer.is_valid()
    text = "Please confirm your phone number first."
    assert form.errors["phone"] == serializer.errors["phone"] == [text]


def test_form_field_is_hidden_and_keeps_the_id(anonymous_proof):
    class SignUp(forms.Form):
        name = forms.CharField()
        phone = VerifiedPhoneFormField(purpose="signup")

    page = SignUp({"phone": str(anonymous_proof.pk)}).as_p()
    assert f'<input type="hidden" name="phone" value="{anonymous_proof.pk}"' in page


def test_user_set_on_one_form_is_not_set_on_another(proof, user):
    class SignUp(forms.Form):
        phone = VerifiedPhoneFormField()

    row = proof()
    first, second = SignUp({"phone": row.pk}), SignUp({"phone": row.pk})
    first.fields["phone"].user = user
    assert (first.is_valid(), second.is_valid()) == (True, False)
