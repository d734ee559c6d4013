"""The fields and redeem_verification accept a valid proof and refuse all others."""

import re
import uuid
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django import forms
from django.contrib.auth.models import AnonymousUser
from django.core.signing import Signer
from django.utils import timezone
from rest_framework import serializers

from django_idenfy_phone import services
from django_idenfy_phone.api.fields import VerifiedPhoneField
from django_idenfy_phone.exceptions import AlreadyRedeemed, NotVerified
from django_idenfy_phone.forms import VerifiedPhoneField as VerifiedPhoneFormField
from django_idenfy_phone.models import PhoneVerification
from support.steps import named_cases

pytestmark = pytest.mark.django_db

NOT_LOGGED_IN = [AnonymousUser(), None]
QUARTER = timedelta(minutes=15)
MICROSECOND = timedelta(microseconds=1)
SALT = services.REDEEM_SALT


# Three ways to use a proof. Each returns the row, or the code of the refusal.


def by_serializer(proof, user, purpose=""):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose=purpose)

    request = SimpleNamespace(user=user)
    form = SignUp(data={"phone": proof}, context={"request": request})
    if form.is_valid():
        return form.validated_data["phone"]
    return form.errors["phone"][0].code


def by_form(proof, user, purpose=""):
    class SignUp(forms.Form):
        phone = VerifiedPhoneFormField(purpose=purpose, user=user)

    form = SignUp({"phone": proof})
    if form.is_valid():
        return form.cleaned_data["phone"]
    return form.errors.as_data()["phone"][0].code


def by_redeeming(pk, user, purpose=""):
    try:
        row = PhoneVerification(pk=pk)
        return services.redeem_verification(row, user=user, purpose=purpose)
    except (NotVerified, AlreadyRedeemed) as error:
        return error.code


def token_of(row):
    return services.redeem_token(row)


BY_FIELDS = [by_serializer, by_form]
ALL_WAYS = [*BY_FIELDS, by_redeeming]


@pytest.mark.parametrize("options", [{}, {"write_only": True}, {"write_only": False}])
def test_field_is_always_write_only(anonymous_proof, options):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose="signup", **options)

    form = SignUp(data={"phone": token_of(anonymous_proof)})
    assert form.is_valid()
    assert (form.validated_data, form.data) == ({"phone": anonymous_proof}, {})


@pytest.mark.parametrize("use_proof", ALL_WAYS)
def test_own_proof_is_accepted(proof, user, use_proof):
    row = proof()
    accepted = use_proof(row.pk, user)
    assert isinstance(accepted, PhoneVerification)
    assert accepted == row


def test_anonymous_row_is_redeemed_without_a_token(anonymous_proof, other_user):
    assert by_redeeming(anonymous_proof.pk, other_user, "signup") == anonymous_proof


@pytest.mark.parametrize("use_proof", BY_FIELDS)
@pytest.mark.parametrize("is_logged_in", [True, False])
def test_token_of_an_anonymous_proof_is_accepted(
    anonymous_proof, other_user, use_proof, is_logged_in
):
    for user in [other_user] if is_logged_in else NOT_LOGGED_IN:
        token = token_of(anonymous_proof)
        assert use_proof(token, user, "signup") == anonymous_proof


@pytest.mark.parametrize("use_proof", BY_FIELDS)
@pytest.mark.parametrize("written", [str, uuid.UUID, lambda pk: uuid.UUID(pk).hex])
def test_id_of_an_anonymous_proof_is_refused(anonymous_proof, user, use_proof, written):
    pk = written(str(anonymous_proof.pk))
    refusals = [use_proof(pk, caller, "signup") for caller in (user, *NOT_LOGGED_IN)]
    assert refusals == ["phone_not_verified"] * 3


@pytest.mark.parametrize("use_proof", BY_FIELDS)
def test_token_of_an_own_proof_is_accepted_from_its_user_only(
    proof, user, other_user, use_proof
):
    row = proof()
    assert use_proof(token_of(row), user) == row
    refusals = [use_proof(token_of(row), caller) for caller in (other_user, None)]
    assert refusals == ["phone_not_verified"] * 2


@pytest.mark.parametrize("use_proof", BY_FIELDS)
def test_token_is_read_under_an_old_key_only_while_it_is_a_fallback(
    anonymous_proof, settings, use_proof
):
    token, old_key = token_of(anonymous_proof), settings.SECRET_KEY
    settings.SECRET_KEY = "new"
    assert use_proof(token, None, "signup") == "phone_not_verified"
    settings.SECRET_KEY_FALLBACKS = [old_key]
    assert use_proof(token, None, "signup") == anonymous_proof


def test_token_is_the_id_and_a_signature(proof):
    row, other = proof(), proof()
    assert re.fullmatch(rf"{row.pk}:[\w-]{{43}}", token_of(row), re.ASCII)
    assert token_of(row) == token_of(PhoneVerification(pk=row.pk)) != token_of(other)


FORGERIES = {
    "cut": lambda row, token: token[:-1],
    "longer": lambda row, token: token + "A",
    "other case": lambda row, token: token.swapcase(),
    "upper case": lambda row, token: token.upper(),
    "id in upper case": lambda row, token: str(row.pk).upper() + token[36:],
    "id without hyphens": lambda row, token: row.pk.hex + token[36:],
    "other id": lambda row, token: str(uuid.UUID(int=row.pk.int ^ 1)) + token[36:],
    "without id": lambda row, token: token[36:],
    "without signature": lambda row, token: token[:37],
    "without separator": lambda row, token: token.replace(":", ""),
    "twice": lambda row, token: f"{token}:{token}",
    "space": lambda row, token: f" {token}",
    "newline": lambda row, token: f"{token}\n",
    "NUL": lambda row, token: f"{token}\0",
    "surrogate": lambda row, token: f"{token}\ud800",
    "surrogate in id": lambda row, token: f"\udfff{token}",
    "full width": lambda row, token: token.translate({0x3A: 0xFF1A}),
    "huge": lambda row, token: token * 10_000,
    "other salt": lambda row, token: Signer(salt="other").sign(str(row.pk)),
    "no salt": lambda row, token: Signer().sign(str(row.pk)),
    "other key": lambda row, token: Signer(key="x", salt=SALT).sign(str(row.pk)),
    "list": lambda row, token: [token],
    "dict": lambda row, token: {"phone": token},
    "bytes": lambda row, token: token.encode(),
    "id": lambda row, token: row.pk,
    "number": lambda row, token: row.pk.int,
    "row": lambda row, token: row,
}


@pytest.mark.parametrize("use_proof", BY_FIELDS)
@pytest.mark.parametrize("forge", **named_cases(FORGERIES))
def test_forged_token_is_refused(anonymous_proof, user, use_proof, forge):
    forged = forge(anonymous_proof, token_of(anonymous_proof))
    refusals = [use_proof(forged, caller, "signup") for caller in (user, None)]
    assert refusals == ["phone_not_verified"] * 2


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


GARBAGE = ["x", "1234", "g" * 32, "1" * 400, "\0", "{}", "<b>", "' OR 1=1", ":", "a:b"]
GARBAGE += ["\ud800", ":\udfff", " ", "\n", "é" * 36, "1" * 10**6]


@pytest.mark.parametrize("use_proof", BY_FIELDS)
@pytest.mark.parametrize("value", GARBAGE)
def test_field_refuses_text_that_is_neither_token_nor_id(user, use_proof, value):
    assert use_proof(value, user) == "phone_not_verified"


OTHER_TYPES = [[], {}, 1.5, [str(uuid.UUID(int=7))], b"x", 0, 1, True, -1, 10**5000]


@pytest.mark.parametrize("value", OTHER_TYPES, ids=range(len(OTHER_TYPES)))
def test_serializer_field_refuses_other_types(user, value):
    assert by_serializer(value, user) == "phone_not_verified"


@pytest.mark.parametrize(
    ("use_proof", "value", "code"),
    [
        (by_serializer, None, "null"),
        (by_serializer, "", "phone_not_verified"),
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

    assert SignUp(data={"phone": token_of(anonymous_proof)}).is_valid()
    own = proof(purpose="signup")
    assert not SignUp(data={"phone": own.pk}).is_valid()
    assert not SignUp(data={"phone": token_of(own)}).is_valid()


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


def test_form_field_is_hidden_and_keeps_the_token(anonymous_proof):
    class SignUp(forms.Form):
        name = forms.CharField()
        phone = VerifiedPhoneFormField(purpose="signup")

    token = token_of(anonymous_proof)
    page = SignUp({"phone": token}).as_p()
    assert f'<input type="hidden" name="phone" value="{token}"' in page


def test_user_set_on_one_form_is_not_set_on_another(proof, user):
    class SignUp(forms.Form):
        phone = VerifiedPhoneFormField()

    row = proof()
    first, second = SignUp({"phone": row.pk}), SignUp({"phone": row.pk})
    first.fields["phone"].user = user
    assert (first.is_valid(), second.is_valid()) == (True, False)
