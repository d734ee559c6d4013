"""Bad input is refused with the right error; nothing is stored, spent or echoed.

Whole bodies are compared, so no part of the input can be in them.
"""

import json
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from django_idenfy_phone import services
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import (
    NOTHING_STORED,
    START_URL,
    confirm_url,
    detail_url,
    named_cases,
    post_code,
    post_json,
    post_start,
    response_without_time,
    sends_checks_and_rows,
    status_and_body,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("idenfy_sandbox")]

JSON = "application/json"
INVALID_CODE = (400, {"code": ["Enter the 4 digits of the code."]})
PARSE_ERROR = (
    400,
    {"detail": "The request body must be a JSON object.", "code": "parse_error"},
)
BODY_TOO_LARGE = (
    413,
    {"detail": "The request body is too large.", "code": "body_too_large"},
)
NOT_AUTHENTICATED = (
    403,
    {
        "detail": "Authentication credentials were not provided.",
        "code": "not_authenticated",
    },
)
# As sends_checks_and_rows returns it.
ROW_UNCHANGED = (0, 0, [("sent", 0)])

SERVER_FIELDS = ["user", "status", "is_verified", "is_anonymous", "purpose", "region"]
SERVER_FIELDS += ["checks", "request_id", "failure", "send_attempts"]


def post_raw(client, url, body, content_type=JSON):
    """POST bytes or text as they are."""
    return client.generic("POST", url, body, content_type)


@pytest.fixture(params=["start", "confirm"])
def endpoint(request, make):
    """Each URL that takes a body, and what must be stored after a refusal."""
    if request.param == "start":
        return START_URL, NOTHING_STORED
    return confirm_url(make()), ROW_UNCHANGED


# Bodies

NOT_AN_OBJECT = {
    "spaces": b"   ",
    "open brace": b"{",
    "list": b"[]",
    "text": b'"x"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    "deep lists": b"[" * 4_000,
    "deep closed lists": b"[" * 2_000 + b"]" * 2_000,
    "deep objects": b'{"a":' * 700,
    "NaN": b'{"phone_number": NaN, "code": NaN}',
    "Infinity": b'{"phone_number": -Infinity, "code": Infinity}',
    "single quotes": b"{'phone_number': '+37061234567'}",
    "trailing comma": b'{"phone_number": "+37061234567", "code": "1234",}',
    "two objects": b'{"code": "1234"}{"phone_number": "+37061234567"}',
    "duplicate keys": b'{"phone_number": "+37061234567", "code": "1234", '
    b'"phone_number": "+37061234568", "code": "1235"}',
    "the same twice": b'{"phone_number": "+37061234567", "code": "1234", '
    b'"phone_number": "+37061234567", "code": "1234"}',
    "duplicate keys inside": b'{"phone_number": "+37061234567", "code": "1234", '
    b'"extra": {"a": 1, "a": 2}}',
    "duplicate keys by escape": b'{"phone_number": "+37061234567", "code": "1234", '
    b'"phone\\u005fnumber": "+37061234568", "cod\\u0065": "1235"}',
    "raw line break": b'{"phone_number": "+37061234567\n", "code": "1234\n"}',
    "raw NUL": b'{"phone_number": "+37061234567\0", "code": "1234\0"}',
    "invalid UTF-8": b'{"phone_number": "+37061234567", "code": "1234", "a": "\xff"}',
    "UTF-8 of a surrogate": b'{"phone_number": "\xed\xa0\x80", "code": "\xed\xa0\x80"}',
    "UTF-16": '{"phone_number": "+37061234567", "code": "1234"}'.encode("utf-16"),
    "UTF-16 without BOM": '{"phone_number": "+37061234567"}'.encode("utf-16-le"),
    "UTF-8 with BOM": b'\xef\xbb\xbf{"phone_number": "+37061234567", "code": "1234"}',
    "a form": b"phone_number=%2B37061234567&code=1234",
}


@pytest.mark.parametrize("body", **named_cases(NOT_AN_OBJECT))
def test_body_that_is_not_a_json_object_is_refused(api, idenfy_sandbox, endpoint, body):
    url, unchanged = endpoint
    assert status_and_body(post_raw(api, url, body)) == PARSE_ERROR
    assert sends_checks_and_rows(idenfy_sandbox) == unchanged


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_empty_body_names_the_missing_field(api, idenfy_sandbox, endpoint, body):
    url, unchanged = endpoint
    field = "phone_number" if url == START_URL else "code"
    refused = post_raw(api, url, body)
    assert status_and_body(refused) == (400, {field: ["This field is required."]})
    assert sends_checks_and_rows(idenfy_sandbox) == unchanged


# The size is checked first: most of these would be 400 otherwise.
OVERSIZED = {
    "100,000 brackets": b"[" * 100_000,
    "a 5,000-digit integer": b'{"phone_number": %s}' % (b"9" * 5_000),
    "4097 bytes": json.dumps({"phone_number": NUMBER, "code": "1234"})
    .encode()
    .ljust(4097),
    "a code of 1 MB": b'{"code": "%s"}' % (b"1" * 1_000_000),
    "invalid UTF-8": b"\xff" * 5_000,
}


@pytest.mark.parametrize("body", **named_cases(OVERSIZED))
def test_body_over_4_kib_is_refused(api, idenfy_sandbox, endpoint, body):
    url, unchanged = endpoint
    assert status_and_body(post_raw(api, url, body)) == BODY_TOO_LARGE
    assert sends_checks_and_rows(idenfy_sandbox) == unchanged


def test_body_of_4_kib_is_accepted(api):
    body = json.dumps({"phone_number": NUMBER}).encode().ljust(4096)
    assert post_raw(api, START_URL, body).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "",
        "json",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=nonsense",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/json; charset=utf-8-sig",
        "application/json; charset=hex",
    ],
)
def test_other_content_type_is_refused(api, idenfy_sandbox, endpoint, content_type):
    url, unchanged = endpoint
    body = json.dumps({"phone_number": NUMBER, "code": "1234"})
    refused = post_raw(api, url, body, content_type)
    text = f'Unsupported media type "{content_type}" in request.'
    expected = {"detail": text, "code": "unsupported_media_type"}
    assert status_and_body(refused) == (415, expected)
    assert sends_checks_and_rows(idenfy_sandbox) == unchanged


@pytest.mark.parametrize(
    "parameters",
    ["", "; charset=utf-8", ';charset="UTF-8"', "; charset=utf8", "; charset=", ";v=1"],
)
def test_json_in_utf_8_is_accepted(api, parameters):
    body = json.dumps({"phone_number": NUMBER})
    started = post_raw(api, START_URL, body, JSON + parameters)
    assert started.status_code == 202


EXTRA = {
    "id": "abcdefab-cdef-4abc-8def-9876abcdef10",
    "status": "verified",
    "is_verified": True,
    "is_anonymous": True,
    "sender_name": "Bank",
    "purpose": "payment",
    "region": "US",
    "checks": -100,
    "created_at": "2000-01-01T00:00:00Z",
    "__class__": {"constructor": {}},
    "\ud800": "\udfff",
}


def test_extra_keys_of_start_are_ignored(api):
    plain = post_start(api)
    stored = PhoneVerification.objects.values(*SERVER_FIELDS).get()
    PhoneVerification.objects.all().delete()
    padded = post_json(api, START_URL, {"phone_number": NUMBER, **EXTRA})
    assert plain.status_code == padded.status_code == 202
    assert PhoneVerification.objects.values(*SERVER_FIELDS).get() == stored


def test_start_cannot_choose_its_id_or_time(api):
    started = post_json(api, START_URL, {"phone_number": NUMBER, **EXTRA})
    row = PhoneVerification.objects.get()
    assert str(row.pk) == started.json()["id"] != EXTRA["id"]
    assert timezone.now() - row.created_at < timedelta(minutes=1)


def test_start_cannot_choose_another_user(api, user, other_user):
    pk = other_user.pk
    body = {"phone_number": NUMBER, "user": pk, "user_id": pk}
    assert post_json(api, START_URL, body).status_code == 202
    assert PhoneVerification.objects.get().user == user


def test_extra_keys_of_confirm_are_ignored(api, make, every_code_is_wrong):
    row = make()
    extra = {"is_verified": True, "request_id": "x" * 32, "received_code": "9999"}
    body = {"code": "1234", **extra}
    confirmed = post_json(api, confirm_url(row), body)
    assert confirmed.json()["is_verified"] is False
    sent = [request.body for request in every_code_is_wrong.requests]
    assert sent == [{"request_id": row.request_id, "received_code": "1234"}]


def test_null_is_refused(api, idenfy_sandbox, endpoint):
    url, unchanged = endpoint
    field = "phone_number" if url == START_URL else "code"
    refused = post_json(api, url, {field: None})
    assert status_and_body(refused) == (400, {field: ["This field may not be null."]})
    assert sends_checks_and_rows(idenfy_sandbox) == unchanged


# Codes

INVALID_CODES = {
    "empty": "",
    "integer": 1234,
    "float": 1234.0,
    "true": True,
    "list": ["1234"],
    "list of digits": ["1", "2", "3", "4"],
    "object": {"code": "1234"},
    "three digits": "123",
    "five digits": "12345",
    "3,000 digits": "1" * 3_000,
    "NUL": "1234\0",
    "superscripts": "\xb9\xb2\xb3\u2074",
    "one other digit": "123٤",
    "two scripts": "١٢۳۴",
    "line feed inside": "12\n34",
    "tab": "1234\t",
    "escape": "\x1b1234",
    "dash inside": "12-34",
    "only marks": "\u200b\u200b\u200b\u200b",
    "full-width letters": "\uff21\uff22\uff23\uff24",
    "five digits with spaces": "12 34 5",
    "minus": "-123",
    "plus": "+123",
    "exponent": "1e10",
    "hexadecimal": "0x1F",
    "letters": "abcd",
    "underscore": "1_00",
    "point": "12.4",
    "surrogate": "123\ud800",
    "SQL": "' OR",
    "template": "{{1}}",
    "wildcard": "....",
}


@pytest.mark.parametrize("code", **named_cases(INVALID_CODES))
def test_invalid_code_spends_no_check(api, make, idenfy_sandbox, code):
    refused = post_code(api, make(), code)
    assert status_and_body(refused) == INVALID_CODE
    assert sends_checks_and_rows(idenfy_sandbox) == ROW_UNCHANGED


PASTED_CODES = {
    "space inside": "12 34",
    "spaces between": "1 2 3 4",
    "spaces around": " 1234 ",
    "no-break space": "1234\xa0",
    "thin space": "12\u200934",
    "line feed": "1234\n",
    "CR LF": "1234\r\n",
    "marks of a phone": "\u202a1234\u202c",
    "zero-width space": "12\u200b34",
    "full-width digits": "１２３４",
    "Arabic-Indic digits": "١٢٣٤",
    "Persian digits": "۱۲۳۴",
    "Devanagari digits": "१२३४",
}


@pytest.mark.parametrize("code", **named_cases(PASTED_CODES))
def test_code_is_read_as_people_type_and_paste_it(api, make, every_code_is_wrong, code):
    assert post_code(api, make(), code).status_code == 200
    requests = every_code_is_wrong.requests
    assert [request.body["received_code"] for request in requests] == ["1234"]


@pytest.mark.django_db(transaction=True)
def test_service_reads_a_code_as_the_api_does(make, user, every_code_is_wrong):
    services.confirm_verification(make().pk, "１２ ３４", user=user)
    requests = every_code_is_wrong.requests
    assert [request.body["received_code"] for request in requests] == ["1234"]


@pytest.mark.parametrize("code", ["0000", "0042", "1234"])
def test_code_keeps_its_leading_zeros(api, make, every_code_is_wrong, code):
    assert post_code(api, make(), code).status_code == 200
    requests = every_code_is_wrong.requests
    assert [request.body["received_code"] for request in requests] == [code]


# Ids

MISSING_IDS = [
    "unknown",
    "another's",
    "a deleted user's",
    "deleted",
    "not a UUID",
    "long",
    "in capitals",
    "without hyphens",
    "in braces",
    "a URN",
    "with NUL",
    "with a line feed",
    "with Arabic digits",
]


@pytest.fixture(params=MISSING_IDS)
def missing_id(request, make, other_user):
    """An id under which this user finds no row."""
    match request.param:
        case "unknown":
            return str(uuid.uuid4())
        case "another's" | "a deleted user's":
            row = make(user=other_user)
            if request.param == "a deleted user's":
                other_user.delete()
            return row.pk
        case "deleted":
            row = make()
            pk = row.pk
            row.delete()
            return pk
    own = str(make(id=uuid.UUID("abcdefab-cdef-4abc-8def-9876abcdef10")).pk)
    return {
        "not a UUID": "robots.txt",
        "long": own * 50,
        "in capitals": own.upper(),
        "without hyphens": own.replace("-", ""),
        "in braces": f"%7B{own}%7D",
        "a URN": f"urn:uuid:{own}",
        "with NUL": f"{own}%00",
        "with a line feed": f"{own}%0A",
        "with Arabic digits": own.replace("9", "%D9%A9"),
    }[request.param]


NOT_FOUND = b'{"detail":"There is no such verification.","code":"not_found"}'


def test_status_answers_the_same_for_foreign_and_unknown_ids(
    api, idenfy_sandbox, missing_id
):
    unknown = api.get(f"/phone/{uuid.uuid4()}/")
    refused = api.get(f"/phone/{missing_id}/")
    assert response_without_time(refused) == response_without_time(unknown)
    assert (unknown.status_code, unknown.content) == (404, NOT_FOUND)
    assert idenfy_sandbox.state.checks == 0


def test_confirm_answers_the_same_for_foreign_and_unknown_ids(
    api, idenfy_sandbox, missing_id
):
    body = {"code": "1234"}
    unknown = post_json(api, f"/phone/{uuid.uuid4()}/confirm/", body)
    refused = post_json(api, f"/phone/{missing_id}/confirm/", body)
    assert response_without_time(refused) == response_without_time(unknown)
    assert (unknown.status_code, unknown.content) == (404, NOT_FOUND)
    assert idenfy_sandbox.state.checks == 0
    assert not PhoneVerification.objects.exclude(checks=0).exists()


@pytest.mark.parametrize("is_deleted", [False, True])
def test_visitor_cannot_confirm_the_row_of_a_user(
    visitor, make, user, idenfy_sandbox, is_deleted
):
    row = make()
    if is_deleted:
        user.delete()
    refused = post_code(visitor, row)
    assert (refused.status_code, refused.content) == (404, NOT_FOUND)
    assert sends_checks_and_rows(idenfy_sandbox) == ROW_UNCHANGED


# Too early and too late

TEXTS = {
    "not_sent_yet": "The code has not been sent yet. Please try again in a moment.",
    "expired": "This code has expired. Please ask for a new one.",
    "locked": "Too many wrong codes. Please ask for a new code.",
    "failed": "The code could not be sent. Please ask for a new one.",
}


@pytest.mark.parametrize("status", ["queued", "sending"])
def test_code_is_not_checked_before_it_is_sent(api, make, idenfy_sandbox, status):
    refused = post_code(api, make(status))
    body = {"detail": TEXTS["not_sent_yet"], "code": "not_sent_yet", "retry_after": 2}
    assert (status_and_body(refused), refused["Retry-After"]) == ((409, body), "2")
    assert sends_checks_and_rows(idenfy_sandbox) == (0, 0, [(status, 0)])


@pytest.mark.parametrize(
    ("status", "fields"),
    [("expired", {}), ("locked", {}), ("failed", {"failure": "unknown"})],
)
def test_code_is_not_checked_in_a_final_status(
    api, make, idenfy_sandbox, status, fields
):
    refused = post_code(api, make(status, **fields))
    assert status_and_body(refused) == (410, {"detail": TEXTS[status], "code": status})
    assert "Retry-After" not in refused
    assert sends_checks_and_rows(idenfy_sandbox) == (0, 0, [(status, 0)])


def test_row_past_its_expiry_answers_expired_before_the_sweep(
    api, make, idenfy_sandbox
):
    row = make(expires_at=timezone.now() - timedelta(seconds=1))
    refused = post_code(api, row)
    body = {"detail": TEXTS["expired"], "code": "expired"}
    assert status_and_body(refused) == (410, body)
    assert sends_checks_and_rows(idenfy_sandbox) == (0, 0, [("expired", 0)])


# Methods

NOT_POST = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"]
NOT_GET = ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"]


@pytest.mark.parametrize("method", NOT_POST)
def test_post_endpoint_refuses_other_methods(api, idenfy_sandbox, endpoint, method):
    url, unchanged = endpoint
    body = json.dumps({"phone_number": NUMBER, "code": "1234"})
    refused = api.generic(method, url, body, JSON)
    assert (refused.status_code, refused["Allow"]) == (405, "POST, OPTIONS")
    assert sends_checks_and_rows(idenfy_sandbox) == unchanged


@pytest.mark.parametrize("method", NOT_GET)
def test_status_endpoint_is_read_only(api, make, idenfy_sandbox, method):
    body = json.dumps({"status": "verified", "is_verified": True})
    refused = api.generic(method, detail_url(make()), body, JSON)
    text = f'Method "{method}" not allowed.'
    expected = {"detail": text, "code": "method_not_allowed"}
    assert status_and_body(refused) == (405, expected)
    assert sends_checks_and_rows(idenfy_sandbox) == ROW_UNCHANGED


OVERRIDES = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"]


@pytest.mark.parametrize("header", OVERRIDES)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_method_cannot_be_overridden_by_post(
    api, idenfy_sandbox, endpoint, method, header
):
    url, unchanged = endpoint
    body = json.dumps({"phone_number": NUMBER, "code": "1234", "_method": "POST"})
    refused = api.generic(
        method, f"{url}?_method=POST", body, JSON, headers={header: "POST"}
    )
    assert refused.status_code == 405
    assert sends_checks_and_rows(idenfy_sandbox) == unchanged


@pytest.mark.parametrize("header", OVERRIDES)
def test_post_cannot_be_overridden_by_get(api, make, idenfy_sandbox, header):
    url = f"{detail_url(make())}?_method=GET"
    refused = api.generic("POST", url, "{}", JSON, headers={header: "GET"})
    assert refused.status_code == 405


# Logins


def test_start_requires_a_login(idenfy_sandbox):
    refused = post_start(APIClient())
    assert status_and_body(refused) == NOT_AUTHENTICATED
    assert sends_checks_and_rows(idenfy_sandbox) == NOTHING_STORED


def test_status_requires_a_login(make):
    assert status_and_body(APIClient().get(detail_url(make()))) == NOT_AUTHENTICATED


def test_confirm_requires_a_login(make, idenfy_sandbox):
    refused = post_code(APIClient(), make())
    assert status_and_body(refused) == NOT_AUTHENTICATED
    assert sends_checks_and_rows(idenfy_sandbox) == ROW_UNCHANGED


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{", b"\xff"])
def test_login_is_required_before_the_body_is_read(body):
    assert status_and_body(post_raw(APIClient(), START_URL, body)) == NOT_AUTHENTICATED


@pytest.fixture
def browser(user):
    """A logged-in session that has a CSRF cookie."""
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    client.get("/admin/login/")
    return client


BAD_TOKENS = {"none": None, "short": "wrong", "long": "a" * 64, "odd": "<é\ud83d>"}


@pytest.mark.parametrize("token", **named_cases(BAD_TOKENS))
def test_session_requires_its_csrf_token(browser, idenfy_sandbox, endpoint, token):
    url, unchanged = endpoint
    headers = {} if token is None else {"HTTP_X_CSRFTOKEN": token}
    body = {"phone_number": NUMBER, "code": "1234"}
    refused = post_json(browser, url, body, **headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert refused.json()["detail"].startswith("CSRF Failed: CSRF token")
    assert sends_checks_and_rows(idenfy_sandbox) == unchanged


def test_session_with_its_csrf_token_may_start(browser):
    token = browser.cookies["csrftoken"].value
    assert post_start(browser, HTTP_X_CSRFTOKEN=token).status_code == 202
