"""Copied as a test module by test_recipe_sites.py."""

import pytest
from rest_framework.test import APIClient

from django_idenfy_phone.ownership import release_number

NUMBER = "+37060012345"
PASSWORD = "long-enough-4711"
pytestmark = pytest.mark.django_db


@pytest.fixture
def token(idenfy_sandbox):
    """Start for a sign-up, confirm, and return the redeem token."""

    def prove():
        api, body = APIClient(), {"phone_number": NUMBER}
        started = api.post("/signup/phone/", body, format="json")
        code = {"code": idenfy_sandbox.code_for(NUMBER)}
        api.post(started["Location"] + "confirm/", code, format="json")
        return started.json()["redeem_token"]

    return prove


def numbers(model):
    users = model.objects.order_by("pk").values_list("username", "phone_number")
    return dict(users)


def form(username, phone):
    both = {"password1": PASSWORD, "password2": PASSWORD}
    return {"username": username, "email": f"{username}@example.com", **both} | {
        "phone": phone
    }


def test_allauth_signs_up_with_a_proof_once(client, token, django_user_model):
    proof = token()
    url = "/accounts/signup/"
    assert "phone" in client.post(url, form("ona", "")).context["form"].errors
    assert client.post(url, form("ona", proof)).status_code == 302
    assert numbers(django_user_model) == {"ona": NUMBER}
    client.logout()
    # So that only the spent proof refuses.
    release_number(django_user_model.objects.get())
    assert "phone" in client.post(url, form("rasa", proof)).context["form"].errors
    assert numbers(django_user_model) == {"ona": None}


def test_allauth_refuses_the_number_of_another_account(
    client, token, django_user_model
):
    client.post("/accounts/signup/", form("ona", token()))
    client.logout()
    refused = client.post("/accounts/signup/", form("rasa", token()))
    assert list(refused.context["form"].errors) == ["phone"]
    assert numbers(django_user_model) == {"ona": NUMBER}


def test_dj_rest_auth_signs_up_with_a_proof_once(token, django_user_model):
    proof, api = token(), APIClient()
    registered = api.post("/registration/", form("ona", proof), format="json")
    assert registered.status_code in (201, 204), registered.json()
    taken = APIClient().post("/registration/", form("rasa", token()), format="json")
    assert (taken.status_code, list(taken.json())) == (400, ["phone"])
    assert numbers(django_user_model) == {"ona": NUMBER}
    # So that only the spent proof refuses.
    release_number(django_user_model.objects.get())
    again = APIClient().post("/registration/", form("rasa", proof), format="json")
    assert (again.status_code, list(again.json())) == (400, ["phone"])
    assert numbers(django_user_model) == {"ona": None}


def test_bearer_of_a_jwt_keeps_a_number(idenfy_sandbox, django_user_model):
    django_user_model.objects.create_user("ona", password=PASSWORD)
    api, login = APIClient(), {"username": "ona", "password": PASSWORD}
    access = api.post("/token/", login, format="json").json()["access"]
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {access}")
    started = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
    assert "redeem_token" not in started.json()
    code = {"code": idenfy_sandbox.code_for(NUMBER)}
    confirmed = api.post(started["Location"] + "confirm/", code, format="json")
    assert confirmed.json()["is_verified"] is True
    assert numbers(django_user_model) == {"ona": NUMBER}
