"""The contract of the HTTP API: whole answers, for every status and error code."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from django_idenfy_phone import services, tasks
from django_idenfy_phone.exceptions import InsideTransaction
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.wire import answer, refusal, reset

pytestmark = pytest.mark.django_db

START = "/phone/start/"
JSON = "application/json"
MASKED = "+370******67"
NO_CACHE = "max-age=0, no-cache, no-store, must-revalidate, private"
ADMIN = "/admin/django_idenfy_phone/phoneverification/"


def detail_url(row):
    return f"/phone/{row.pk}/"


def confirm_url(row):
    return f"/phone/{row.pk}/confirm/"


def post(client, url, **body):
    return client.post(url, json.dumps(body).encode(), content_type=JSON)


def start(client, url=START):
    return post(client, url, phone_number=NUMBER)


def confirm(client, row, code="1234"):
    return post(client, confirm_url(row), code=code)


def said(response):
    return response.status_code, response.json()


def utc(moment):
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def shown(row, **changes):
    """The whole of what a client sees of a row that is sent and untouched."""
    row.refresh_from_db()
    return {
        "id": str(row.pk),
        "status": row.status,
        "is_verified": False,
        "phone_number": MASKED,
        "purpose": "",
        "checks_left": 0,
        "code_spent": False,
        "created_at": utc(row.created_at),
        "expires_at": utc(row.expires_at),
        "resend_at": utc(row.created_at + timedelta(seconds=60)),
        "failure": None,
    } | changes


@pytest.fixture
def host(settings):
    """A host with views of its own, see host.py."""
    settings.ROOT_URLCONF = "hosts.custom"


@pytest.fixture
def anonymous(settings):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    return APIClient()


@pytest.fixture
def wrong(wire):
    """An iDenfy that calls every code wrong."""
    wire.will(answer(200, {"is_verified": False}))
    return wire


# Start


def test_a_start_answers_202_and_the_verification(api, idenfy_sandbox):
    started = start(api)
    row = PhoneVerification.objects.get()
    assert said(started) == (202, shown(row, status="queued", expires_at=None))


HEADERS = {
    "Location": None,
    "Content-Type": "application/json",
    "Cache-Control": NO_CACHE,
    "Allow": "POST, OPTIONS",
    "Retry-After": None,
    "Set-Cookie": None,
}


def test_a_start_answers_with_the_headers_of_its_kind(api, idenfy_sandbox):
    started = start(api)
    headers = {name: started.headers.get(name) for name in HEADERS}
    assert headers == HEADERS | {"Location": f"/phone/{started.json()['id']}/"}


def test_the_location_of_a_start_shows_the_same_verification(api, idenfy_sandbox):
    started = start(api)
    assert said(api.get(started["Location"])) == (200, started.json())


def test_a_start_is_stored_for_its_user(api, user, idenfy_sandbox):
    start(api)
    row = PhoneVerification.objects.get()
    assert (row.user, row.is_anonymous, row.region) == (user, False, "LT")


def test_a_second_start_waits_for_the_cooldown(api, idenfy_sandbox):
    start(api)
    second = start(api)
    text = "A code was requested a moment ago. Please wait before the next one."
    wait = int(second["Retry-After"])
    body = {"detail": text, "code": "cooldown", "retry_after": wait}
    assert said(second) == (429, body)
    assert 55 <= wait <= 60


def test_a_start_is_allowed_when_its_retry_after_is_over(api, make, idenfy_sandbox):
    make(created_at=timezone.now() - timedelta(seconds=60))
    assert start(api).status_code == 202


def test_a_number_is_held_for_whoever_asks(
    api, make, idenfy_sandbox, django_user_model
):
    make(user=django_user_model.objects.create_user("jonas"))
    assert start(api).json()["code"] == "cooldown"


UNAVAILABLE = {
    "detail": "We cannot verify phone numbers right now. Please try again later.",
    "code": "provider_unavailable",
}


@pytest.mark.parametrize("name", ["API_KEY", "API_SECRET"])
def test_a_start_without_an_account_answers_503(api, settings, idenfy_sandbox, name):
    setattr(settings, f"IDENFY_PHONE_{name}", "")
    assert said(start(api)) == (503, UNAVAILABLE)
    assert not PhoneVerification.objects.exists()


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"phone_number": ["This field is required."]}),
        ({"phone_number": None}, {"phone_number": ["This field may not be null."]}),
    ],
)
def test_field_errors_of_a_start_have_the_shape_of_drf(api, body, errors):
    assert said(post(api, START, **body)) == (400, errors)


def test_a_reached_limit_says_when_it_ends(api, settings, make, idenfy_sandbox):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/h",)}
    make(created_at=timezone.now() - timedelta(minutes=30))
    limited = start(api)
    text = "Too many codes were requested. Please try again later."
    wait = int(limited["Retry-After"])
    body = {"detail": text, "code": "limit_reached", "retry_after": wait}
    assert said(limited) == (429, body)
    assert 1790 <= wait <= 1800


# Repeated starts

KEY = "3f1c9a4e-key-of-a-form"


def start_with_key(client, key, number=NUMBER):
    body = json.dumps({"phone_number": number}).encode()
    return client.generic("POST", START, body, JSON, HTTP_IDEMPOTENCY_KEY=key)


def test_a_repeated_start_answers_200_and_the_first_row(api, idenfy_sandbox):
    first, again = start_with_key(api, KEY), start_with_key(api, KEY)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert again["Location"] == first["Location"]
    assert PhoneVerification.objects.count() == 1


def test_a_key_for_another_number_answers_422(api, idenfy_sandbox):
    start_with_key(api, KEY)
    reused = start_with_key(api, KEY, "+37061234568")
    text = "This Idempotency-Key was used with another phone number."
    assert said(reused) == (422, {"detail": text, "code": "idempotency_key_reused"})
    assert PhoneVerification.objects.count() == 1


@pytest.mark.parametrize(
    "key", ["", "short", "x" * 65, "with spaces inside", "\xe9" * 20]
)
def test_a_malformed_key_answers_400(api, idenfy_sandbox, key):
    malformed = start_with_key(api, key)
    text = "Idempotency-Key must be 16 to 64 visible ASCII characters."
    body = {"detail": text, "code": "invalid_idempotency_key"}
    assert said(malformed) == (400, body)
    assert not PhoneVerification.objects.exists()


def test_a_key_without_a_login_is_ignored(anonymous, idenfy_sandbox):
    start_with_key(anonymous, KEY)
    again = start_with_key(anonymous, KEY)
    assert again.json()["code"] == "cooldown"


# Status

STATUSES = [
    ("queued", {}, {"expires_at": None}),
    ("sending", {}, {"expires_at": None}),
    ("sent", {}, {"checks_left": 3}),
    ("sent", {"checks": 1, "checks_wrong": 1}, {"checks_left": 2}),
    ("sent", {"checks": 2, "checks_wrong": 1}, {"checks_left": 1, "code_spent": True}),
    ("sent", {"checks": 2, "checks_refunded": 2}, {"checks_left": 3}),
    ("sent", {"checks": 5, "checks_refunded": 5}, {"checks_left": 1}),
    ("verified", {"checks": 1}, {"is_verified": True}),
    ("expired", {}, {"code_spent": True}),
    ("locked", {"checks": 3, "checks_wrong": 3}, {"code_spent": True}),
]


@pytest.mark.parametrize(("status", "fields", "changes"), STATUSES)
def test_the_status_is_the_whole_verification(api, make, status, fields, changes):
    row = make(status, **fields)
    assert said(api.get(detail_url(row))) == (200, shown(row, **changes))


@pytest.mark.parametrize(
    ("failure", "told", "seconds"),
    [
        ("number_refused", "number_refused", 60),
        ("account", "not_sent", 10),
        ("unreachable", "not_sent", 10),
        ("rate_limited", "not_sent", 10),
        ("too_late", "not_sent", 10),
        ("unknown", "maybe_sent", 60),
    ],
)
def test_a_failure_tells_only_what_helps(api, make, failure, told, seconds):
    row = make("failed", failure=failure, provider_code="PARTNER_CONTRACT_ERROR")
    resend_at = utc(row.created_at + timedelta(seconds=seconds))
    body = shown(row, failure=told, code_spent=True, resend_at=resend_at)
    assert said(api.get(detail_url(row))) == (200, body)


def test_a_purpose_is_shown(api, make):
    row = make(purpose="signup")
    assert api.get(detail_url(row)).json()["purpose"] == "signup"


def test_a_status_asks_idenfy_nothing(api, make, wire):
    api.get(detail_url(make()))
    assert wire.requests == []


def test_a_late_row_is_shown_as_what_it_is(api, make):
    row = make(expires_at=timezone.now() - timedelta(seconds=1))
    assert api.get(detail_url(row)).json()["status"] == "expired"


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/New_York"])
@pytest.mark.parametrize("time_format", [None, "iso-8601", "%d/%m/%Y"])
def test_times_are_iso_8601_in_utc(api, make, settings, zone, time_format):
    settings.TIME_ZONE = zone
    settings.REST_FRAMEWORK = {"DATETIME_FORMAT": time_format}
    noon = datetime(2025, 3, 30, 0, 59, 30, tzinfo=UTC)
    row = make("verified", created_at=noon, expires_at=noon + timedelta(minutes=10))
    body = api.get(detail_url(row)).json()
    assert [body["created_at"], body["resend_at"], body["expires_at"]] == [
        "2025-03-30T00:59:30Z",
        "2025-03-30T01:00:30Z",
        "2025-03-30T01:09:30Z",
    ]


def test_times_are_utc_in_an_active_zone(api, make):
    row = make(created_at=datetime(2025, 3, 30, 1, 0, tzinfo=UTC))
    with timezone.override("Asia/Kathmandu"):
        body = api.get(detail_url(row)).json()
    assert body["created_at"] == "2025-03-30T01:00:00Z"


# Confirm


def test_a_right_code_answers_200_and_true(api, idenfy_sandbox):
    start(api)
    row = PhoneVerification.objects.get()
    confirmed = confirm(api, row, idenfy_sandbox.code_for(NUMBER))
    assert said(confirmed) == (200, shown(row, status="verified", is_verified=True))
    assert confirmed["Cache-Control"] == NO_CACHE


def test_a_confirm_repeated_after_true_asks_idenfy_nothing(api, idenfy_sandbox):
    start(api)
    row = PhoneVerification.objects.get()
    first = confirm(api, row, idenfy_sandbox.code_for(NUMBER))
    again = [confirm(api, row, code) for code in ("0000", "1234")]
    assert [said(each) for each in again] == [said(first)] * 2
    assert idenfy_sandbox.state.checks == 1


def test_a_wrong_code_answers_200_and_false(api, make, wrong):
    row = make()
    confirmed = confirm(api, row)
    assert said(confirmed) == (200, shown(row, checks_left=2))


def test_a_wrong_code_after_a_lost_check_asks_for_a_new_code(api, make, wrong):
    row = make(checks=1)
    confirmed = confirm(api, row)
    assert said(confirmed) == (200, shown(row, checks_left=1, code_spent=True))


def test_the_last_wrong_code_locks(api, make, wrong):
    row = make(checks=2, checks_wrong=2)
    confirmed = confirm(api, row)
    assert said(confirmed) == (200, shown(row, status="locked", code_spent=True))


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"code": ["This field is required."]}),
        ({"code": None}, {"code": ["This field may not be null."]}),
        ({"code": "12345"}, {"code": ["Enter the 4 digits of the code."]}),
    ],
)
def test_field_errors_of_a_confirm_have_the_shape_of_drf(api, make, body, errors):
    assert said(post(api, confirm_url(make()), **body)) == (400, errors)


# Error codes

WAITS = [
    (
        "queued",
        {},
        {
            "detail": "The code has not been sent yet. Please try again in a moment.",
            "code": "not_sent_yet",
            "retry_after": 2,
        },
    ),
    (
        "sent",
        {"checks": 1},
        {
            "detail": "A code is being checked. Please try again in a moment.",
            "code": "check_in_progress",
            "retry_after": 2,
        },
    ),
]


@pytest.mark.parametrize(("status", "fields", "body"), WAITS)
def test_409_says_when_to_try_again(api, make, wire, status, fields, body):
    row = make(status, **fields, checking_until=timezone.now() + timedelta(seconds=20))
    early = confirm(api, row)
    assert (said(early), early["Retry-After"]) == ((409, body), "2")
    assert wire.requests == []


ENDS = [
    ("expired", "", "This code has expired. Please ask for a new one."),
    ("locked", "", "Too many wrong codes. Please ask for a new code."),
    ("failed", "account", "The code could not be sent. Please ask for a new one."),
]


@pytest.mark.parametrize(("status", "failure", "text"), ENDS)
def test_410_names_the_end(api, make, wire, status, failure, text):
    late = confirm(api, make(status, failure=failure))
    assert said(late) == (410, {"detail": text, "code": status})
    assert "Retry-After" not in late
    assert wire.requests == []


@pytest.mark.parametrize("tail", ["", "confirm/"])
def test_404_says_no_more(api, tail):
    url = f"/phone/{uuid.uuid4()}/{tail}"
    missing = post(api, url, code="1234") if tail else api.get(url)
    body = {"detail": "There is no such verification.", "code": "not_found"}
    assert said(missing) == (404, body)


def test_503_repeats_how_long_idenfy_wants_to_rest(api, make, wire):
    wire.will(refusal(429, "TOO_MANY_REQUESTS", Retry_After="7"))
    row = make()
    unavailable = confirm(api, row)
    assert said(unavailable) == (503, UNAVAILABLE | {"retry_after": 7})
    assert unavailable["Retry-After"] == "7"
    assert said(api.get(detail_url(row))) == (200, shown(row, checks_left=3))


def test_503_for_a_refused_account_gives_the_check_back(api, make, wire):
    wire.will(refusal(401, "UNAUTHORIZED"))
    row = make()
    refused = confirm(api, row)
    assert said(refused) == (503, UNAVAILABLE | {"retry_after": 2})
    assert refused["Retry-After"] == "2"
    assert said(api.get(detail_url(row))) == (200, shown(row, checks_left=3))


def test_503_for_a_refused_connection_gives_the_check_back(api, make, idenfy_sandbox):
    idenfy_sandbox.stop()
    row = make()
    refused = confirm(api, row)
    assert said(refused) == (503, UNAVAILABLE | {"retry_after": 2})
    assert refused["Retry-After"] == "2"
    assert said(api.get(detail_url(row))) == (200, shown(row, checks_left=3))


@pytest.mark.parametrize(
    "act",
    [answer(500), reset, answer(200, {"is_verified": "true"})],
    ids=["500", "reset", "text"],
)
def test_503_for_a_lost_answer_keeps_the_check_spent(api, make, wire, act):
    wire.will(act)
    row = make()
    lost = confirm(api, row)
    text = "We could not find out whether the code is right. Please try again."
    body = {"detail": text, "code": "check_unknown"}
    assert said(lost) == (503, body)
    row.refresh_from_db()
    assert (row.checks, row.checks_refunded, row.is_verified) == (1, 0, False)


# DRF's own errors


def test_403_has_a_code(make):
    refused = APIClient().get(detail_url(make()))
    text = "Authentication credentials were not provided."
    assert said(refused) == (403, {"detail": text, "code": "not_authenticated"})


def test_401_has_a_code_and_its_challenge(host, make):
    refused = APIClient().get(f"/password/{make().pk}/")
    text = "Authentication credentials were not provided."
    assert said(refused) == (401, {"detail": text, "code": "not_authenticated"})
    assert refused["WWW-Authenticate"] == 'Basic realm="api"'


def test_a_wrong_password_has_a_code(host, make):
    client = APIClient(HTTP_AUTHORIZATION="Basic b25hOng=")
    refused = client.get(f"/password/{make().pk}/")
    text = "Invalid username/password."
    assert said(refused) == (401, {"detail": text, "code": "authentication_failed"})


def test_405_has_a_code(api):
    refused = api.get(START)
    text = 'Method "GET" not allowed.'
    assert said(refused) == (405, {"detail": text, "code": "method_not_allowed"})


def test_406_has_a_code(api, make):
    refused = api.get(detail_url(make()), HTTP_ACCEPT="application/xml")
    text = "Could not satisfy the request Accept header."
    assert said(refused) == (406, {"detail": text, "code": "not_acceptable"})


def test_413_has_a_code(api):
    refused = post(api, START, phone_number="1" * 5_000)
    text = "The request body is too large."
    assert said(refused) == (413, {"detail": text, "code": "body_too_large"})


def test_415_has_a_code(api):
    refused = api.post(START, b"x", content_type="text/plain")
    text = 'Unsupported media type "text/plain" in request.'
    assert said(refused) == (415, {"detail": text, "code": "unsupported_media_type"})


def test_a_throttled_429_has_a_code_and_its_wait(api, host):
    refused = start(api, "/busy/")
    text = "Request was throttled. Expected available in 8 seconds."
    body = {"detail": text, "code": "throttled", "retry_after": 8}
    assert (said(refused), refused["Retry-After"]) == ((429, body), "8")


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_no_answer_may_be_cached(api, make, idenfy_sandbox, accept):
    api.credentials(HTTP_ACCEPT=accept)
    row = make("expired")
    answers = [start(api), start(api), api.get(START), confirm(api, row)]
    answers += [api.get(detail_url(row)), api.get(f"/phone/{uuid.uuid4()}/")]
    answers += [APIClient().get(detail_url(row)), api.options(START)]
    assert {each["Cache-Control"] for each in answers} == {NO_CACHE}


# A host's own exception handler


def test_a_hosts_envelope_wins(api, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.enveloped"}
    missing = api.get(f"/phone/{uuid.uuid4()}/")
    assert said(missing) == (404, {"error": {"code": "not_found", "status": 1}})


def test_a_hosts_envelope_wins_over_the_wait(api, make, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.enveloped"}
    early = confirm(api, make("queued"))
    assert said(early) == (409, {"error": {"code": "not_sent_yet", "status": 1}})
    assert early["Retry-After"] == "2"


def test_a_hosts_further_key_wins(api, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.annotated"}
    missing = api.get(f"/phone/{uuid.uuid4()}/")
    text = "There is no such verification."
    assert said(missing) == (404, {"detail": text, "status": 404})


def test_a_hosts_retry_after_may_be_a_date(api, make, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.dated"}
    late = confirm(api, make("expired"))
    assert late.json()["code"] == "expired"
    assert late["Retry-After"].endswith("GMT")


# A host's own views


def test_a_view_stores_the_purpose_it_was_made_with(api, host, idenfy_sandbox):
    started = start(api, "/signup/")
    assert (started.status_code, started.json()["purpose"]) == (202, "signup")
    assert PhoneVerification.objects.get().purpose == "signup"


def test_a_location_follows_the_namespace_of_the_host(api, host, idenfy_sandbox):
    started = start(api, "/signup/")
    assert started["Location"] == f"/phones/{started.json()['id']}/"
    assert api.get(started["Location"]).json() == started.json()


def test_a_host_without_our_urls_gets_no_location(api, settings, idenfy_sandbox):
    settings.ROOT_URLCONF = "hosts.without_urls"
    started = start(api, "/start/")
    assert started.status_code == 202
    assert "Location" not in started


def test_a_views_own_permission_lets_in(api, host, idenfy_sandbox):
    assert start(api, "/ona/").status_code == 202


def test_a_views_own_permission_keeps_out(host, idenfy_sandbox, django_user_model):
    client = APIClient()
    client.force_authenticate(django_user_model.objects.create_user("jonas"))
    refused = start(client, "/ona/")
    text = "You do not have permission to perform this action."
    assert said(refused) == (403, {"detail": text, "code": "permission_denied"})
    assert not PhoneVerification.objects.exists()


def test_a_views_own_throttle_stores_nothing(api, host, idenfy_sandbox):
    assert start(api, "/busy/").status_code == 429
    assert not PhoneVerification.objects.exists()


# Anonymous callers


def test_an_anonymous_caller_goes_all_the_way(anonymous, idenfy_sandbox):
    started = start(anonymous)
    row = PhoneVerification.objects.get()
    confirmed = confirm(anonymous, row, idenfy_sandbox.code_for(NUMBER))
    assert (started.status_code, row.user, row.is_anonymous) == (202, None, True)
    assert said(confirmed) == (200, shown(row, is_verified=True))
    assert said(anonymous.get(started["Location"])) == said(confirmed)


def test_a_logged_in_holder_of_an_anonymous_id_confirms(anonymous, api, idenfy_sandbox):
    start(anonymous)
    row = PhoneVerification.objects.get()
    confirmed = confirm(api, row, idenfy_sandbox.code_for(NUMBER))
    assert said(confirmed) == (200, shown(row, is_verified=True))
    assert (row.user, row.is_anonymous) == (None, True)


def test_a_logged_in_start_is_not_anonymous(anonymous, api, user, idenfy_sandbox):
    start(api)
    row = PhoneVerification.objects.get()
    assert (row.user, row.is_anonymous) == (user, False)
    assert anonymous.get(detail_url(row)).status_code == 404


def test_anonymous_callers_are_let_in_and_out_live(anonymous, settings, make):
    row = make(user=None, is_anonymous=True)
    assert anonymous.get(detail_url(row)).status_code == 200
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = False
    assert anonymous.get(detail_url(row)).status_code == 403


# Users who live only in a token


class TokenUser:
    is_authenticated = True

    def __init__(self, pk):
        self.pk = pk


@pytest.fixture(params=[int, str])
def token_api(request, user):
    client = APIClient()
    client.force_authenticate(TokenUser(request.param(user.pk)))
    return client


def test_a_token_user_goes_all_the_way(token_api, user, idenfy_sandbox):
    started = start(token_api)
    row = PhoneVerification.objects.get()
    confirmed = confirm(token_api, row, idenfy_sandbox.code_for(NUMBER))
    assert (started.status_code, row.user) == (202, user)
    assert said(confirmed) == (200, shown(row, is_verified=True))
    assert said(token_api.get(started["Location"])) == said(confirmed)


def test_another_token_user_finds_nothing(make, user):
    client = APIClient()
    client.force_authenticate(TokenUser(user.pk + 1))
    assert client.get(detail_url(make())).status_code == 404


# Transactions


@pytest.fixture
def eager():
    tasks.send_code.app.conf.task_always_eager = True
    yield
    tasks.send_code.app.conf.task_always_eager = False


@pytest.fixture
def atomic_requests(monkeypatch):
    for connection in connections.all():
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.fixture(
    params=["/phone/{}/confirm/", "/own/{}/confirm/"], ids=["ours", "subclass"]
)
def url_of(request, settings):
    if not request.param.startswith("/phone/"):
        settings.ROOT_URLCONF = "hosts.custom"
    return lambda row: request.param.format(row.pk)


@pytest.mark.django_db(transaction=True)
def test_atomic_requests_wrap_a_view_that_is_not_ours(client, host, atomic_requests):
    assert client.get("/atomic/").json() == {"is_atomic": True}


@pytest.mark.django_db(transaction=True)
def test_a_wrong_code_stays_spent_with_atomic_requests(
    api, make, wrong, atomic_requests, url_of
):
    row = make()
    assert post(api, url_of(row), code="1234").status_code == 200
    row.refresh_from_db()
    assert (row.checks, row.checks_wrong) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_a_lost_answer_stays_spent_with_atomic_requests(
    api, make, wire, atomic_requests, url_of
):
    wire.will(answer(500))
    row = make()
    assert post(api, url_of(row), code="1234").status_code == 503
    row.refresh_from_db()
    assert (row.checks, row.checks_wrong) == (1, 0)


@pytest.mark.django_db(transaction=True)
def test_guesses_end_with_atomic_requests(api, make, wrong, atomic_requests, url_of):
    row = make()
    statuses = [post(api, url_of(row), code="1234").status_code for _ in range(5)]
    assert (statuses, len(wrong.requests)) == ([200, 200, 200, 410, 410], 3)


@pytest.mark.django_db(transaction=True)
def test_a_check_is_committed_before_idenfy_is_asked(api, make, wire, atomic_requests):
    seen = []

    def look(sock):
        seen.append(PhoneVerification.objects.get().checks)
        connections.close_all()
        answer(200, {"is_verified": False})(sock)

    wire.will(look)
    confirm(api, make())
    assert seen == [1]


@pytest.mark.django_db(transaction=True)
def test_a_start_leaves_after_its_commit_with_atomic_requests(
    api, host, wire, atomic_requests, eager
):
    statuses = []

    def look(sock):
        statuses.append(PhoneVerification.objects.get().status)
        connections.close_all()
        answer(500)(sock)

    wire.will(look)
    assert start(api, "/signup/").status_code == 202
    assert statuses == ["sending"]


def test_confirming_inside_a_transaction_asks_idenfy_nothing(user, make, wire):
    row = make()
    with transaction.atomic(), pytest.raises(InsideTransaction):
        services.confirm_verification(row.pk, "1234", user=user)
    row.refresh_from_db()
    assert (row.checks, wire.requests) == (0, [])


def test_a_confirm_view_inside_a_transaction_names_the_remedy(api, make, wire):
    with transaction.atomic(), pytest.raises(InsideTransaction, match="non_atomic"):
        confirm(api, make())
    assert wire.requests == []


# Admin


@pytest.fixture
def sent(make):
    return make("verified", purpose="signup", provider_code="BAD_VALUE")


PAGES = ["", "{}/change/", "{}/history/"]


@pytest.mark.parametrize("page", PAGES)
def test_admin_pages_show_neither_number_nor_request_id(admin_client, sent, page):
    opened = admin_client.get(ADMIN + page.format(sent.pk))
    text = opened.content.decode()
    assert opened.status_code == 200
    assert NUMBER[4:] not in text.replace(" ", "").replace("-", "")
    assert sent.request_id not in text


@pytest.mark.parametrize("page", PAGES[:2])
def test_admin_pages_show_the_mask(admin_client, sent, page):
    assert MASKED in admin_client.get(ADMIN + page.format(sent.pk)).content.decode()


def test_the_admin_offers_no_add_change_or_delete(admin_client, sent):
    pages = [admin_client.get(ADMIN + page.format(sent.pk)) for page in PAGES]
    text = "".join(page.content.decode() for page in pages)
    offers = [f"{ADMIN}add/", "/delete/", "_save", "_continue", "delete_selected"]
    assert [offer for offer in offers if offer in text] == []


@pytest.mark.parametrize("page", ["add/", "{}/delete/"])
def test_the_admin_refuses_to_add_or_delete(admin_client, sent, page):
    url = ADMIN + page.format(sent.pk)
    refused = [admin_client.get(url), admin_client.post(url, {"post": "yes"})]
    assert [each.status_code for each in refused] == [403, 403]
    assert PhoneVerification.objects.get() == sent


def test_the_admin_refuses_to_change(admin_client, make):
    row = make()
    body = {"status": "verified", "is_verified": "on", "_save": "Save"}
    refused = admin_client.post(f"{ADMIN}{row.pk}/change/", body)
    row.refresh_from_db()
    assert (refused.status_code, row.status, row.is_verified) == (403, "sent", False)


def test_the_admin_deletes_no_selection(admin_client, sent):
    body = {
        "action": "delete_selected",
        "_selected_action": str(sent.pk),
        "post": "yes",
    }
    admin_client.post(ADMIN, body)
    assert PhoneVerification.objects.get() == sent


def test_the_admin_asks_for_the_permission(client, django_user_model, sent):
    client.force_login(django_user_model.objects.create_user("eva", is_staff=True))
    pages = [client.get(ADMIN), client.get(f"{ADMIN}{sent.pk}/change/")]
    assert [page.status_code for page in pages] == [403, 403]


@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "q=61234567",
        "q=" + "%20" * 2_000,
        "p=999999999",
        "p=-1",
        "p=x",
        "o=99.-99.x",
        "all=1",
        "e=1",
        "_popup=1",
        "_facets=x",
        "status__exact=sent",
        "status__exact=nonsense",
        "status=verified&failure=unknown",
    ],
)
def test_the_admin_list_takes_any_query(admin_client, sent, query):
    assert admin_client.get(f"{ADMIN}?{query}").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "nonsense=1",
        "status__exact=%00",
        "failure__exact=%00",
        "status__in=sent,%00",
        "status__regex=(",
        "status__nonsense=1",
        "id=x",
        "user=99999999999999999999",
        "user__password__startswith=a",
        "created_at__gte=x",
        "phone_number=%00",
        "phone_number__regex=(",
        "phone_number__startswith=%2B3706",
        "request_id__startswith=a",
        "__=1",
        "=1",
    ],
)
def test_the_admin_list_takes_no_lookup_of_ones_own(admin_client, sent, query):
    answered = admin_client.get(f"{ADMIN}?{query}")
    assert (answered.status_code, answered["Location"]) == (302, f"{ADMIN}?e=1")


@pytest.mark.parametrize("pk", ["x", "%00", "_3F", str(uuid.UUID(int=7)), "1" * 3_000])
def test_the_admin_redirects_from_a_row_that_is_not_there(admin_client, pk):
    assert admin_client.get(f"{ADMIN}{pk}/change/").status_code == 302


def test_a_row_names_itself_without_its_number(sent):
    assert str(sent) == f"{sent.pk} (verified)"
    assert NUMBER[4:] not in repr(sent)
