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
def started(sign_up_host, visitor):
    """What a visitor's start answers."""
    return post_start(visitor, "/start/").json()


@pytest.fixture
def token(started, sign_up_host, visitor):
    """The redeem token of a fresh anonymous proof, as a visitor gets it."""
    assert confirm(visitor, started["id"], sign_up_host)["is_verified"]
    return started["redeem_token"]


def confirm(client, pk, sandbox):
    body = {"code": sandbox.code_for(NUMBER)}
    return post_json(client, f"/phone/{pk}/confirm/", body).json()


def sign_up(client, phone, username="jonas"):
    return post_json(client, "/sign-up/", {"username": username, "phone": phone})


def test_visitor_signs_up_with_a_verified_number(token, django_user_model):
    signed_up = sign_up(client_of(None), token)
    jonas = django_user_model.objects.get(username="jonas")
    assert status_and_body(signed_up) == (201, {"id": jonas.pk})
    row = rows.verified(user=jonas, phone_number=NUMBER).get()
    assert (row.purpose, row.is_anonymous) == ("signup", True)


def test_visitor_signs_up_with_a_form(token, client, django_user_model):
    form = {"username": "jonas", "phone": token}
    assert client.post("/sign-up-page/", form).status_code == 201
    jonas = django_user_model.objects.get(username="jonas")
    assert rows.verified(user=jonas, phone_number=NUMBER).exists()


def test_proof_creates_only_one_account(token, django_user_model):
    first, second = (
        sign_up(client_of(None), token, username=name) for name in ("jonas", "petras")
    )
    assert (first.status_code, second.status_code) == (201, 400)
    assert second.json() == NOT_VERIFIED
    assert list(django_user_model.objects.values_list("username")) == [("jonas",)]


def test_invalid_serializer_does_not_spend_the_proof(token, visitor):
    invalid = sign_up(visitor, token, username="!")
    valid = sign_up(visitor, token)
    assert (list(invalid.json()), valid.status_code) == (["username"], 201)


def test_invalid_form_does_not_spend_the_proof(token, client):
    url = "/sign-up-page/"
    invalid = client.post(url, {"username": "!", "phone": token})
    valid = client.post(url, {"username": "jonas", "phone": token})
    assert (invalid.status_code, valid.status_code) == (200, 201)
    assert f'value="{token}"' in invalid.content.decode()


def test_id_of_an_anonymous_proof_creates_no_account(token, started, client):
    refused = [sign_up(client_of(None), started["id"]), sign_up(client, started["id"])]
    assert [status_and_body(each) for each in refused] == [(400, NOT_VERIFIED)] * 2
    form = {"username": "jonas", "phone": started["id"]}
    assert client.post("/sign-up-page/", form).status_code == 200
    assert not rows.exclude(redeemed_at=None).exists()


def test_unconfirmed_start_creates_no_account(started, django_user_model):
    refused = sign_up(client_of(None), started["redeem_token"])
    assert status_and_body(refused) == (400, NOT_VERIFIED)
    assert not django_user_model.objects.exists()


def test_proof_of_another_purpose_creates_no_account(sign_up_host, visitor):
    started = post_start(visitor).json()
    confirm(visitor, started["id"], sign_up_host)
    assert sign_up(visitor, started["redeem_token"]).json() == NOT_VERIFIED


def test_after_sign_up_only_the_new_user_sees_the_row(
    token, started, django_user_model
):
    sign_up(client_of(None), token)
    jonas = django_user_model.objects.get(username="jonas")
    url = detail_url(PhoneVerification(pk=started["id"]))
    responses = [client_of(caller).get(url) for caller in (jonas, None)]
    assert [each.status_code for each in responses] == [200, 404]


def test_anonymous_start_is_off_by_default(sign_up_host):
    assert post_start(client_of(None), "/start/").status_code == 403
    assert not rows.exists()
