"""Errors that DRF raises, and unknown ids, are answered with a stable code."""

import uuid

import pytest
from rest_framework.test import APIClient

from support.steps import (
    NO_CACHE,
    START_URL,
    client_of,
    detail_url,
    post_code,
    post_json,
    post_start,
    status_and_body,
)

pytestmark = pytest.mark.django_db

NOT_AUTHENTICATED = {
    "detail": "Authentication credentials were not provided.",
    "code": "not_authenticated",
}


@pytest.mark.parametrize("tail", ["", "confirm/"])
def test_unknown_id_answers_404(api, tail):
    url = f"/phone/{uuid.uuid4()}/{tail}"
    missing = post_json(api, url, {"code": "1234"}) if tail else api.get(url)
    body = {"detail": "There is no such verification.", "code": "not_found"}
    assert status_and_body(missing) == (404, body)


def test_403_has_a_code(make):
    refused = APIClient().get(detail_url(make()))
    assert status_and_body(refused) == (403, NOT_AUTHENTICATED)


def test_401_has_a_code_and_a_challenge(custom_host, make):
    refused = APIClient().get(f"/basic-auth/{make().pk}/")
    assert status_and_body(refused) == (401, NOT_AUTHENTICATED)
    assert refused["WWW-Authenticate"] == 'Basic realm="api"'


def test_wrong_password_has_a_code(custom_host, make):
    client = APIClient(HTTP_AUTHORIZATION="Basic b25hOng=")
    refused = client.get(f"/basic-auth/{make().pk}/")
    body = {"detail": "Invalid username/password.", "code": "authentication_failed"}
    assert status_and_body(refused) == (401, body)


def test_405_has_a_code(api):
    body = {"detail": 'Method "GET" not allowed.', "code": "method_not_allowed"}
    assert status_and_body(api.get(START_URL)) == (405, body)


def test_406_has_a_code(api, make):
    refused = api.get(detail_url(make()), HTTP_ACCEPT="application/xml")
    text = "Could not satisfy the request Accept header."
    assert status_and_body(refused) == (406, {"detail": text, "code": "not_acceptable"})


def test_413_has_a_code(api):
    refused = post_start(api, number="1" * 5_000)
    body = {"detail": "The request body is too large.", "code": "body_too_large"}
    assert status_and_body(refused) == (413, body)


def test_415_has_a_code(api):
    refused = api.post(START_URL, b"x", content_type="text/plain")
    text = 'Unsupported media type "text/plain" in request.'
    body = {"detail": text, "code": "unsupported_media_type"}
    assert status_and_body(refused) == (415, body)


def test_throttled_429_has_a_code_and_retry_after(api, custom_host):
    refused = post_start(api, "/throttled/")
    text = "Request was throttled. Expected available in 8 seconds."
    body = {"detail": text, "code": "throttled", "retry_after": 8}
    assert (status_and_body(refused), refused["Retry-After"]) == ((429, body), "8")


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_no_response_may_be_cached(api, make, idenfy_sandbox, accept):
    api.credentials(HTTP_ACCEPT=accept)
    row = make("expired")
    responses = [
        post_start(api),
        post_start(api),
        api.get(START_URL),
        post_code(api, row),
        api.get(detail_url(row)),
        api.get(f"/phone/{uuid.uuid4()}/"),
        client_of(None).get(detail_url(row)),
        api.options(START_URL),
    ]
    assert {each["Cache-Control"] for each in responses} == {NO_CACHE}
