"""Settings, URLs and view subclasses of a host work with our views."""

import uuid

import pytest
from django.db import connections
from django.utils import translation
from rest_framework.exceptions import APIException
from rest_framework.test import APIRequestFactory, force_authenticate

from django_idenfy_phone.api.views import StartView
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import client_of, post_code, post_json, post_start, status_and_body
from support.wire import answer

pytestmark = pytest.mark.django_db


# Exception handlers


def test_host_may_replace_the_error_body(api, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.replace_body"}
    missing = api.get(f"/phone/{uuid.uuid4()}/")
    body = {"error": {"code": "not_found", "status": 1}}
    assert status_and_body(missing) == (404, body)


def test_replaced_error_body_gets_no_retry_after_key(api, make, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.replace_body"}
    refused = post_code(api, make("queued"))
    body = {"error": {"code": "not_sent_yet", "status": 1}}
    assert status_and_body(refused) == (409, body)
    assert refused["Retry-After"] == "2"


def test_error_body_with_a_key_of_the_host_gets_no_code(api, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.add_status"}
    missing = api.get(f"/phone/{uuid.uuid4()}/")
    body = {"detail": "There is no such verification.", "status": 404}
    assert status_and_body(missing) == (404, body)


def test_host_may_set_retry_after_to_a_date(api, make, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.retry_after_date"}
    refused = post_code(api, make("expired"))
    assert refused.json()["code"] == "expired"
    assert refused["Retry-After"].endswith("GMT")


def test_host_may_answer_errors_by_a_response_of_django(api, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.mounts.json_response"}
    missing = api.get(f"/phone/{uuid.uuid4()}/")
    assert status_and_body(missing) == (418, {"error": "not_found"})


def test_error_that_the_host_does_not_handle_is_raised_as_it_is(api, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.mounts.nothing"}
    with pytest.raises(APIException, match="There is no such verification"):
        api.get(f"/phone/{uuid.uuid4()}/")


# URLs and subclasses


def test_view_stores_the_purpose_given_to_as_view(api, custom_host, idenfy_sandbox):
    started = post_start(api, "/signup/")
    assert (started.status_code, started.json()["purpose"]) == (202, "signup")
    assert PhoneVerification.objects.get().purpose == "signup"


def test_location_uses_the_namespace_of_the_host(api, custom_host, idenfy_sandbox):
    started = post_start(api, "/signup/")
    assert started["Location"] == f"/phones/{started.json()['id']}/"
    assert api.get(started["Location"]).json() == started.json()


def test_host_without_a_status_view_gets_no_links(api, settings, idenfy_sandbox):
    settings.ROOT_URLCONF = "hosts.without_urls"
    started = post_start(api, "/start/")
    assert started.status_code == 202
    assert "Location" not in started
    url = f"/confirm/{started.json()['id']}/"
    confirmed = post_json(api, url, {"code": idenfy_sandbox.code_for(NUMBER)})
    assert (started.json()["url"], confirmed.json()["url"]) == (None, None)


def test_permission_class_of_a_subclass_admits_its_user(
    api, custom_host, idenfy_sandbox
):
    assert post_start(api, "/restricted/").status_code == 202


def test_permission_class_of_a_subclass_refuses_other_users(
    custom_host, idenfy_sandbox, other_user
):
    refused = post_start(client_of(other_user), "/restricted/")
    text = "You do not have permission to perform this action."
    body = {"detail": text, "code": "permission_denied"}
    assert status_and_body(refused) == (403, body)
    assert not PhoneVerification.objects.exists()


def test_throttled_start_stores_nothing(api, custom_host, idenfy_sandbox):
    assert post_start(api, "/throttled/").status_code == 429
    assert not PhoneVerification.objects.exists()


# Mounts: see hosts/mounts.py


@pytest.fixture
def mounts(settings):
    settings.ROOT_URLCONF = "hosts.mounts"
    settings.MIDDLEWARE += ["django.middleware.locale.LocaleMiddleware"]


WITH_OUR_URLS = [
    "/phone/",
    "/again/phone/",
    "/v2/phone/",
    "/%C5%BD%20a%3F%2523/phone/",
    "/7/lt/phone/",
    "/v1/regex/",
    "/option/",
    "/uuid/",
    "/version-4/",
    "/de/in-a-language/",
    "/nested/phone/",
    "/deep/er/phone/",
]


WITHOUT_CURRENT = ["/uuid/", "/version-4/"]


@pytest.mark.parametrize("mount", WITH_OUR_URLS)
def test_views_work_under_any_mount(api, mounts, idenfy_sandbox, mount):
    started = post_start(api, f"{mount}start/")
    assert started["Location"] == f"{mount}{started.json()['id']}/"
    assert api.get(started["Location"]).json() == started.json()
    body = {"code": idenfy_sandbox.code_for(NUMBER)}
    confirmed = post_json(api, f"{started['Location']}confirm/", body)
    assert confirmed.json()["is_verified"] is True
    assert confirmed.json()["url"] == started.json()["url"] == started["Location"]


@pytest.mark.parametrize(
    "mount", [m for m in WITH_OUR_URLS if m not in WITHOUT_CURRENT]
)
def test_current_is_mounted_beside_the_ids(api, mounts, make, mount):
    row = make()
    current = api.get(f"{mount}current/")
    assert current.json()["url"] == f"{mount}{row.pk}/"
    assert api.get(current.json()["url"]).json() == current.json()


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("/token/begin/", "/token/codes/"),
        ("/token/v2/begin/", "/token/v2/codes/"),
        ("/by-hand/start/", "/by-hand/"),
        ("/rest/", "/rest/"),
        ("/nested/sign-up/", "/nested/phone/"),
        ("/deep/er/sign-up/", "/deep/er/phone/"),
    ],
)
def test_location_stays_in_the_mount_of_the_host(
    api, mounts, idenfy_sandbox, url, detail
):
    started = post_start(api, url)
    assert started["Location"] == f"{detail}{started.json()['id']}/"
    assert started["Location"] == started.json()["url"]
    assert api.get(started["Location"]).json() == started.json()


def test_links_are_right_after_a_request_that_changed_its_language(
    api, mounts, idenfy_sandbox, settings
):
    def change_language(request, phone_number):
        translation.activate("lt")

    url = "/de/in-a-language/"
    settings.IDENFY_PHONE_START_GUARD = change_language
    assert post_start(api, f"{url}start/").status_code == 202
    settings.IDENFY_PHONE_START_GUARD = None
    started = post_start(api, f"{url}start/", number="+37061234568")
    assert started["Location"] == f"{url}{started.json()['id']}/"


def test_links_keep_the_script_name(api, mounts, idenfy_sandbox):
    started = post_start(api, "/v2/phone/start/", SCRIPT_NAME="/shop")
    url = f"/v2/phone/{started.json()['id']}/"
    assert started["Location"] == f"/shop{url}"
    for path in (url, "/v2/phone/current/"):
        shown = api.get(path, SCRIPT_NAME="/shop", PATH_INFO=path)
        assert shown.json()["url"] == f"/shop{url}"


def test_links_never_name_another_host(api, mounts, idenfy_sandbox):
    started = post_start(api, "/", PATH_INFO="//example.com/start/")
    pk = started.json()["id"]
    assert started["Location"] == f"/%2Fexample.com/{pk}/"
    for path in (pk, "current"):
        shown = api.get("/", PATH_INFO=f"//example.com/{path}/")
        assert shown.json()["url"] == started["Location"]


def test_start_view_works_without_a_resolver(user, idenfy_sandbox):
    request = APIRequestFactory().post("/x/", {"phone_number": NUMBER}, "json")
    force_authenticate(request, user)
    started = StartView.as_view()(request)
    assert started["Location"] == f"/phone/{started.data['id']}/"


@pytest.mark.parametrize("tail", ["", "confirm/"])
def test_unknown_id_under_a_captured_argument_answers_404(api, mounts, tail):
    url = f"/v2/phone/{uuid.uuid4()}/{tail}"
    missing = post_json(api, url, {"code": "1234"}) if tail else api.get(url)
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


# ATOMIC_REQUESTS


@pytest.fixture(
    params=["/phone/{}/confirm/", "/subclass/{}/confirm/"], ids=["ours", "subclass"]
)
def url_of(request, settings):
    """The URL that confirms a row: by our view, then by a subclass."""
    if not request.param.startswith("/phone/"):
        settings.ROOT_URLCONF = "hosts.custom"
    return lambda row: request.param.format(row.pk)


@pytest.mark.django_db(transaction=True)
def test_atomic_requests_wrap_a_view_of_the_host(client, custom_host, atomic_requests):
    assert client.get("/is-atomic/").json() == {"is_atomic": True}


@pytest.mark.django_db(transaction=True)
def test_wrong_code_stays_counted_with_atomic_requests(
    api, make, every_code_is_wrong, atomic_requests, url_of
):
    row = make()
    assert post_json(api, url_of(row), {"code": "1234"}).status_code == 200
    row.refresh_from_db()
    assert (row.checks, row.checks_wrong) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_lost_check_stays_counted_with_atomic_requests(
    api, make, wire, atomic_requests, url_of
):
    wire.will(answer(500))
    row = make()
    assert post_json(api, url_of(row), {"code": "1234"}).status_code == 503
    row.refresh_from_db()
    assert (row.checks, row.checks_wrong) == (1, 0)


@pytest.mark.django_db(transaction=True)
def test_guesses_are_limited_with_atomic_requests(
    api, make, every_code_is_wrong, atomic_requests, url_of
):
    url = url_of(make())
    guesses = [post_json(api, url, {"code": "1234"}) for _ in range(5)]
    statuses = [guess.status_code for guess in guesses]
    assert statuses == [200, 200, 200, 410, 410]
    assert len(every_code_is_wrong.requests) == 3


@pytest.mark.django_db(transaction=True)
def test_sms_is_sent_after_the_commit_with_atomic_requests(
    api, custom_host, wire, atomic_requests, eager
):
    committed = []

    def read_status(sock):
        committed.append(PhoneVerification.objects.get().status)
        connections.close_all()
        answer(500)(sock)

    wire.will(read_status)
    assert post_start(api, "/signup/").status_code == 202
    assert committed == ["sending"]
