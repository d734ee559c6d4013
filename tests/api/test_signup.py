"""A visitor proves a number without an account, and signs up with the proof once."""

import pytest

from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import client_of, detail_url, post_json, post_start, status_and_body

pytestmark = pytest.mark.django_db

rows = PhoneVerification.objects
NOT_VERIFIED = {"phone": ["Please confirm your phone number first."]}


@pytest.fixture
def sign_up_host(settings, idenfy_sandbox):
    settings.ROOT_URLCONF = "hosts.signup"
    return idenfy_sandbox


@pytest.fixture
def proven_id(sign_up_host, visitor):
    """The id of a fresh anonymous proof, as a visitor gets it."""
    pk = post_start(visitor, "/start/").json()["id"]
    assert confirm(visitor, pk, sign_up_host)["is_verified"]
    return pk


def confirm(client, pk, sandbox):
    body = {"code": sandbox.code_for(NUMBER)}
    return post_json(client, f"/phone/{pk}/confirm/", body).json()


def sign_up(client, pk, username="jonas"):
    return post_json(client, "/sign-up/", {"username": username, "phone": pk})


def test_visitor_signs_up_with_a_verified_number(proven_id, django_user_model):
    signed_up = sign_up(client_of(None), proven_id)
    jonas = django_user_model.objects.get(username="jonas")
    assert status_and_body(signed_up) == (201, {"id": jonas.pk})
    row = rows.verified(user=jonas, phone_number=NUMBER).get()
    assert (str(row.pk), row.purpose, row.is_anonymous) == (proven_id, "signup", True)


def test_visitor_signs_up_with_a_form(proven_id, client, django_user_model):
    form = {"username": "jonas", "phone": proven_id}
    assert client.post("/sign-up-page/", form).status_code == 201
    jonas = django_user_model.objects.get(username="jonas")
    assert rows.verified(user=jonas, phone_number=NUMBER).exists()


def test_proof_creates_only_one_account(proven_id, django_user_model):
    first, second = (
        sign_up(client_of(None), proven_id, username=name)
        for name in ("jonas", "petras")
    )
    assert (first.status_code, second.status_code) == (201, 400)
    assert second.json() == NOT_VERIFIED
    assert list(django_user_model.objects.values_list("username")) == [("jonas",)]


def test_invalid_serializer_does_not_spend_the_proof(proven_id, visitor):
    invalid = sign_up(visitor, proven_id, username="!")
    valid = sign_up(visitor, proven_id)
    assert (list(invalid.json()), valid.status_code) == (["username"], 201)


def test_invalid_form_does_not_spend_the_proof(proven_id, client):
    url = "/sign-up-page/"
    invalid = client.post(url, {"username": "!", "phone": proven_id})
    valid = client.post(url, {"username": "jonas", "phone": proven_id})
    assert (invalid.status_code, valid.status_code) == (200, 201)
    assert f'value="{proven_id}"' in invalid.content.decode()


def test_unconfirmed_start_creates_no_account(sign_up_host, visitor, django_user_model):
    started = post_start(visitor, "/start/").json()
    refused = sign_up(client_of(None), started["id"])
    assert status_and_body(refused) == (400, NOT_VERIFIED)
    assert not django_user_model.objects.exists()


def test_proof_of_another_purpose_creates_no_account(sign_up_host, visitor):
    pk = post_start(visitor).json()["id"]
    confirm(visitor, pk, sign_up_host)
    assert sign_up(visitor, pk).json() == NOT_VERIFIED


def test_after_sign_up_only_the_new_user_sees_the_row(proven_id, django_user_model):
    sign_up(client_of(None), proven_id)
    jonas = django_user_model.objects.get(username="jonas")
    url = detail_url(PhoneVerification(pk=proven_id))
    responses = [client_of(caller).get(url) for caller in (jonas, None)]
    assert [each.status_code for each in responses] == [200, 404]


def test_anonymous_start_is_off_by_default(sign_up_host):
    assert post_start(client_of(None), "/start/").status_code == 403
    assert not rows.exists()
