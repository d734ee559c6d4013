"""Anonymous visitors and token users see and confirm their own verifications only."""

import uuid
from types import SimpleNamespace

import pytest
from django.core.exceptions import ValidationError as FormError
from django.db import IntegrityError
from django.db.models import CharField
from django.db.models.signals import post_save
from rest_framework.exceptions import ValidationError

from django_idenfy_phone import services
from django_idenfy_phone.api.fields import VerifiedPhoneField
from django_idenfy_phone.exceptions import UnknownUser
from django_idenfy_phone.forms import VerifiedPhoneField as VerifiedPhoneFormField
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.starting import user_id_of
from support.constants import NUMBER
from support.steps import (
    client_of,
    detail_url,
    named_cases,
    post_code,
    post_start,
    status_and_body,
    verification_body,
)

pytestmark = pytest.mark.django_db


def client_of_token_user(pk):
    """A client whose user stands in a token and was never read from the database."""
    return client_of(SimpleNamespace(pk=pk, is_authenticated=True))


def test_visitor_starts_confirms_and_reads(visitor, idenfy_sandbox):
    started = post_start(visitor)
    row = PhoneVerification.objects.get()
    confirmed = post_code(visitor, row, idenfy_sandbox.code_for(NUMBER))
    assert (started.status_code, row.user, row.is_anonymous) == (202, None, True)
    body = verification_body(row, is_verified=True)
    assert status_and_body(confirmed) == (200, body)
    shown = visitor.get(started["Location"])
    assert status_and_body(shown) == status_and_body(confirmed)


def test_logged_in_user_confirms_an_anonymous_verification(
    visitor, api, idenfy_sandbox
):
    post_start(visitor)
    row = PhoneVerification.objects.get()
    confirmed = post_code(api, row, idenfy_sandbox.code_for(NUMBER))
    body = verification_body(row, is_verified=True)
    assert status_and_body(confirmed) == (200, body)
    assert (row.user, row.is_anonymous) == (None, True)


def test_start_of_a_logged_in_user_is_not_anonymous(visitor, api, user, idenfy_sandbox):
    post_start(api)
    row = PhoneVerification.objects.get()
    assert (row.user, row.is_anonymous) == (user, False)
    assert visitor.get(detail_url(row)).status_code == 404


def test_allow_anonymous_is_read_at_each_request(visitor, settings, make):
    row = make(user=None, is_anonymous=True)
    assert visitor.get(detail_url(row)).status_code == 200
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = False
    assert visitor.get(detail_url(row)).status_code == 403


@pytest.mark.parametrize("key_type", [int, str])
def test_token_user_starts_confirms_and_reads(user, idenfy_sandbox, key_type):
    client = client_of_token_user(key_type(user.pk))
    started = post_start(client)
    row = PhoneVerification.objects.get()
    confirmed = post_code(client, row, idenfy_sandbox.code_for(NUMBER))
    assert (started.status_code, row.user) == (202, user)
    body = verification_body(row, is_verified=True)
    assert status_and_body(confirmed) == (200, body)
    shown = client.get(started["Location"])
    assert status_and_body(shown) == status_and_body(confirmed)


def test_other_token_user_gets_404(make, user):
    other = client_of_token_user(user.pk + 1)
    assert other.get(detail_url(make())).status_code == 404


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pk", [999_999, "auth0|abc"])
def test_start_of_a_token_user_without_a_database_row_answers_403(wire, pk):
    refused = post_start(client_of_token_user(pk))
    assert status_and_body(refused) == UNKNOWN_USER
    assert not PhoneVerification.objects.exists()


# Ids that no user can have

UNKNOWN_USER = (403, {"detail": "This user does not exist.", "code": "unknown_user"})
IMPOSSIBLE_IDS = {
    "no id": None,
    "empty": "",
    "None as text": "None",
    "text": "auth0|abc",
    "NUL": "1\0",
    "surrogate": "\ud800",
    "UUID of an int": uuid.UUID(int=1),
    "true": True,
    "fraction": 1.5,
    "other digits": "١",
    "zero": 0,
    "negative": -1,
    "2^63": 2**63,
    "2^63 as text": str(2**63),
    "-2^63 - 1": -(2**63) - 1,
    "2^200": 2**200,
    "5,000 digits": "9" * 5_000,
    "not a number": float("nan"),
    "infinite": float("inf"),
    "list": [],
    "object": {"id": 1},
    "bytes": b"\xff",
}


@pytest.fixture(params=[False, True], ids=["login", "anonymous allowed"])
def any_login(request, settings):
    """With and without IDENFY_PHONE_ALLOW_ANONYMOUS."""
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = request.param


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pk", **named_cases(IMPOSSIBLE_IDS))
def test_token_with_an_impossible_id_gets_403_everywhere(wire, make, any_login, pk):
    client, row = client_of_token_user(pk), make(user=None, is_anonymous=True)
    answers = [
        post_start(client, number="+37069999999"),
        post_start(client, HTTP_IDEMPOTENCY_KEY="key-of-a-whole-form"),
        client.get(detail_url(row)),
        post_code(client, row),
    ]
    assert [status_and_body(each) for each in answers] == [UNKNOWN_USER] * 4
    assert PhoneVerification.objects.get() == row


def test_login_of_an_unsaved_user_is_never_stored_as_anonymous(
    wire, django_user_model, any_login
):
    refused = post_start(client_of(django_user_model()))
    assert status_and_body(refused) == UNKNOWN_USER
    assert not PhoneVerification.objects.exists()


@pytest.mark.parametrize("pk", **named_cases(IMPOSSIBLE_IDS))
def test_token_with_an_impossible_id_has_no_proof(anonymous_proof, pk):
    user = SimpleNamespace(pk=pk, is_authenticated=True)
    token = services.redeem_token(anonymous_proof)
    field = VerifiedPhoneField(purpose="signup")
    form_field = VerifiedPhoneFormField(purpose="signup", user=user)
    field._context = {"request": SimpleNamespace(user=user)}
    with pytest.raises(ValidationError, match="phone_not_verified"):
        field.run_validation(token)
    with pytest.raises(FormError, match="confirm your phone number"):
        form_field.clean(token)


@pytest.mark.django_db(transaction=True)
def test_receiver_that_breaks_a_constraint_is_not_an_unknown_user(wire):
    def receiver(**kwargs):
        raise IntegrityError("of the host")

    post_save.connect(receiver, sender=PhoneVerification)
    try:
        with pytest.raises(IntegrityError):
            services.start_verification(NUMBER)
    finally:
        post_save.disconnect(receiver, sender=PhoneVerification)


def test_key_of_text_may_be_any_text_that_a_column_holds(monkeypatch, user):
    key = CharField(max_length=20, primary_key=True)
    monkeypatch.setattr(type(user)._meta, "pk", key)
    assert user_id_of(SimpleNamespace(pk="auth0|é 1", is_authenticated=True))
    for pk in ["", "a\0", "\udfff", "x" * 21]:
        with pytest.raises(UnknownUser):
            user_id_of(SimpleNamespace(pk=pk, is_authenticated=True))
