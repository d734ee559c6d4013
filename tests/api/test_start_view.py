"""The start view answers each request with exactly this status, body and headers."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.models import PhoneVerification
from support.steps import (
    NO_CACHE,
    START_URL,
    post_json,
    post_start,
    status_and_body,
    verification_body,
)

pytestmark = pytest.mark.django_db

KEY = "3f1c9a4e-key-of-a-form"
HEADERS = {
    "Location": None,
    "Content-Type": "application/json",
    "Cache-Control": NO_CACHE,
    "Allow": "POST, OPTIONS",
    "Retry-After": None,
    "Set-Cookie": None,
}


def test_start_answers_202_and_the_verification(api, idenfy_sandbox):
    started = post_start(api)
    row = PhoneVerification.objects.get()
    body = verification_body(row, status="queued", expires_at=None)
    assert status_and_body(started) == (202, body)


def test_only_an_anonymous_start_answers_a_redeem_token(visitor, idenfy_sandbox):
    started = post_start(visitor)
    row = PhoneVerification.objects.get()
    body = verification_body(row, status="queued", expires_at=None)
    token = {"redeem_token": services.redeem_token(row)}
    assert status_and_body(started) == (202, body | token)
    assert status_and_body(visitor.get(started["Location"])) == (200, body)


def test_start_answers_with_expected_headers(api, idenfy_sandbox):
    started = post_start(api)
    headers = {name: started.headers.get(name) for name in HEADERS}
    assert headers == HEADERS | {"Location": f"/phone/{started.json()['id']}/"}


def test_location_of_start_shows_the_same_verification(api, idenfy_sandbox):
    started = post_start(api)
    shown = api.get(started["Location"])
    assert status_and_body(shown) == (200, started.json())


def test_start_is_stored_for_its_user(api, user, idenfy_sandbox):
    post_start(api)
    row = PhoneVerification.objects.get()
    assert (row.user, row.is_anonymous, row.region) == (user, False, "LT")


def test_second_start_is_refused_during_the_cooldown(api, idenfy_sandbox):
    first = post_start(api).json()
    second = post_start(api)
    text = "A code was requested a moment ago. Please wait before the next one."
    wait = int(second["Retry-After"])
    body = {"detail": text, "code": "cooldown", "retry_after": wait}
    body |= {"id": first["id"], "url": first["url"]}
    assert status_and_body(second) == (429, body)
    assert 55 <= wait <= 60


def test_start_is_allowed_after_the_cooldown(api, make, idenfy_sandbox):
    make(created_at=timezone.now() - timedelta(seconds=60))
    assert post_start(api).status_code == 202


def test_cooldown_of_a_number_holds_for_every_user(
    api, make, idenfy_sandbox, other_user
):
    make(user=other_user)
    assert post_start(api).json()["code"] == "cooldown"


@pytest.mark.parametrize("name", ["API_KEY", "API_SECRET"])
def test_start_without_api_key_or_secret_answers_503(
    api, settings, idenfy_sandbox, name
):
    setattr(settings, f"IDENFY_PHONE_{name}", "")
    text = "We cannot verify phone numbers right now. Please try again later."
    body = {"detail": text, "code": "provider_unavailable"}
    assert status_and_body(post_start(api)) == (503, body)
    assert not PhoneVerification.objects.exists()


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"phone_number": ["This field is required."]}),
        ({"phone_number": None}, {"phone_number": ["This field may not be null."]}),
    ],
)
def test_field_errors_of_start_have_the_drf_shape(api, body, errors):
    assert status_and_body(post_json(api, START_URL, body)) == (400, errors)


def test_reached_limit_answers_429_with_the_time_to_wait(
    api, settings, make, idenfy_sandbox
):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/h",)}
    make("expired", created_at=timezone.now() - timedelta(minutes=30))
    limited = post_start(api)
    text = "Too many codes were requested. Please try again later."
    wait = int(limited["Retry-After"])
    body = {"detail": text, "code": "limit_reached", "retry_after": wait}
    assert status_and_body(limited) == (429, body)
    assert 1790 <= wait <= 1800


def test_repeated_key_answers_200_and_the_first_row(api, idenfy_sandbox):
    first = post_start(api, HTTP_IDEMPOTENCY_KEY=KEY)
    repeated = post_start(api, HTTP_IDEMPOTENCY_KEY=KEY)
    assert (first.status_code, repeated.status_code) == (202, 200)
    assert repeated.json() == first.json()
    assert repeated["Location"] == first["Location"]
    assert PhoneVerification.objects.count() == 1


def test_key_reused_for_another_number_answers_422(api, idenfy_sandbox):
    post_start(api, HTTP_IDEMPOTENCY_KEY=KEY)
    reused = post_start(api, number="+37061234568", HTTP_IDEMPOTENCY_KEY=KEY)
    text = "This Idempotency-Key was used with another phone number."
    body = {"detail": text, "code": "idempotency_key_reused"}
    assert status_and_body(reused) == (422, body)
    assert PhoneVerification.objects.count() == 1


@pytest.mark.parametrize(
    "key", ["", "short", "x" * 65, "with spaces inside", "\xe9" * 20]
)
def test_malformed_key_answers_400(api, idenfy_sandbox, key):
    malformed = post_start(api, HTTP_IDEMPOTENCY_KEY=key)
    text = "Idempotency-Key must be 16 to 64 visible ASCII characters."
    body = {"detail": text, "code": "invalid_idempotency_key"}
    assert status_and_body(malformed) == (400, body)
    assert not PhoneVerification.objects.exists()


def test_key_of_an_anonymous_visitor_is_ignored(visitor, idenfy_sandbox):
    post_start(visitor, HTTP_IDEMPOTENCY_KEY=KEY)
    repeated = post_start(visitor, HTTP_IDEMPOTENCY_KEY=KEY)
    assert repeated.json()["code"] == "cooldown"
