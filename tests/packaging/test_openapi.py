"""The schema that drf-spectacular writes of a host, with the app and without it."""

import json

import pytest

from django_idenfy_phone.api.errors import STATUS
from django_idenfy_phone.api.parsers import BodyTooLarge
from django_idenfy_phone.statuses import Status
from support.steps import run_module, verification_body, write_files

FILES = {
    "host/__init__.py": "",
    "host/settings.py": """
SECRET_KEY = "only-for-tests"
ROOT_URLCONF = "host.urls"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes",
    "rest_framework", "drf_spectacular", "django_idenfy_phone"]
REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
SPECTACULAR_SETTINGS = {"SCHEMA_PATH_PREFIX": "/api"}
IDENFY_PHONE_API_KEY = IDENFY_PHONE_API_SECRET = "test"
IDENFY_PHONE_REGIONS = ["LT"]
""",
    # Two serializers share the choices of a status, and three have names like ours.
    "host/urls.py": """
import os
from django.urls import include, path
from rest_framework import serializers
from rest_framework.generics import CreateAPIView
from django_idenfy_phone.api.fields import VerifiedPhoneField
from django_idenfy_phone.api.views import StartView

STATUSES = ["open", "paid"]

class OrderSerializer(serializers.Serializer):
    status = serializers.ChoiceField(STATUSES)

class VerificationSerializer(serializers.Serializer):
    status = serializers.ChoiceField(STATUSES)
    failure = serializers.ChoiceField(["late"])

class StartSerializer(serializers.Serializer):
    code = serializers.ChoiceField(["a", "b"])

class StartedSerializer(serializers.Serializer):
    phone = serializers.CharField(write_only=True)

class SignUpSerializer(StartedSerializer):
    phone = VerifiedPhoneField(purpose="signup")

class SignUpStartView(StartView):
    authentication_classes = []

def view(each):
    return CreateAPIView.as_view(serializer_class=each)

urlpatterns = [
    path("api/orders/", view(OrderSerializer)),
    path("api/verifications/", view(VerificationSerializer)),
    path("api/starts/", view(StartSerializer)),
    path("api/started/", view(StartedSerializer)),
]
if os.environ["WITH_US"]:
    urlpatterns += [
        path("api/phone/", include("django_idenfy_phone.urls")),
        path("api/<int:shop>/number/", include("django_idenfy_phone.urls")),
        path("api/signup/phone/", SignUpStartView.as_view(purpose="signup")),
        path("api/signup/", view(SignUpSerializer)),
    ]
""",
}


def written_schema(folder, with_us):
    write_files(folder, FILES)
    result = run_module(
        folder,
        *("django", "spectacular", "--fail-on-warn", "--validate"),
        *("--format", "openapi-json"),
        DJANGO_SETTINGS_MODULE="host.settings",
        WITH_US=with_us,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """The schema of a host with the app, which drf-spectacular finds no fault with."""
    return written_schema(tmp_path_factory.mktemp("with"), "yes")


def operation(schema, path, method="post"):
    return schema["paths"][f"/api/{path}"][method]


START = "phone/start/"
CURRENT = "phone/current/"
STATUS_PATH = "phone/{verification_id}/"
CONFIRM = "phone/{verification_id}/confirm/"


def test_components_of_the_host_stay_as_they_were(schema, tmp_path):
    before = written_schema(tmp_path, "")["components"]["schemas"]
    after = schema["components"]["schemas"]
    assert {name: after[name] for name in before} == before
    added = set(after) - set(before) - {"SignUp"}
    assert all(name.startswith("IdenfyPhone") for name in added)


def codes_of(operation):
    """Each status from 400 on, with the codes that its description names."""
    return {
        int(status): set(response["description"].split(", "))
        for status, response in operation["responses"].items()
        if int(status) >= 400
    }


LOGIN = {"not_authenticated", "authentication_failed"}
EVERYWHERE = {
    401: LOGIN,
    403: {*LOGIN, "permission_denied", "unknown_user"},
    406: {"not_acceptable"},
}
WITH_BODY = {413: {"body_too_large"}, 415: {"unsupported_media_type"}}


def test_start_names_every_status_and_code(schema):
    assert codes_of(operation(schema, START)) == EVERYWHERE | WITH_BODY | {
        400: {"parse_error", "invalid_idempotency_key"},
        422: {"idempotency_key_reused"},
        429: {"cooldown", "limit_reached", "throttled"},
        503: {"provider_unavailable"},
    }


@pytest.mark.parametrize("path", [CURRENT, STATUS_PATH])
def test_status_names_every_status_and_code(schema, path):
    assert codes_of(operation(schema, path, "get")) == EVERYWHERE | {
        404: {"not_found"},
        429: {"throttled"},
        503: {"provider_unavailable"},
    }


def test_confirm_names_every_status_and_code(schema):
    assert codes_of(operation(schema, CONFIRM)) == EVERYWHERE | WITH_BODY | {
        400: {"parse_error"},
        404: {"not_found"},
        409: {"not_sent_yet", "check_in_progress", "number_taken"},
        410: {"expired", "locked", "failed"},
        429: {"throttled"},
        503: {"provider_unavailable", "check_unknown"},
    }


def test_every_error_of_ours_is_named(schema):
    named = set()
    for path, method in [(START, "post"), (STATUS_PATH, "get"), (CONFIRM, "post")]:
        for status, codes in codes_of(operation(schema, path, method)).items():
            named |= {(status, code) for code in codes}
    ours = {(status, error.code) for error, status in STATUS.items()}
    ours.add((BodyTooLarge.status_code, BodyTooLarge.default_code))
    # They are field errors, which have the form of Django REST framework.
    assert ours - named == {(400, "number_not_supported"), (400, "invalid_code")}


@pytest.mark.parametrize("path", [START, CONFIRM])
def test_header_says_how_long_to_wait(schema, path):
    responses = operation(schema, path)["responses"]
    waiting = {
        status for status in responses if "Retry-After" in str(responses[status])
    }
    assert waiting == {"409", "429", "503"} & set(responses)
    assert "retry_after" in str(responses["503"]["content"])


def test_start_takes_an_idempotency_key_and_answers_with_a_location(schema):
    start = operation(schema, START)
    [header] = [each for each in start["parameters"] if each["in"] == "header"]
    assert (header["name"], "required" in header) == ("Idempotency-Key", False)
    assert "Location" in start["responses"]["202"]["headers"]
    assert "Location" in start["responses"]["200"]["headers"]


def test_refused_start_may_lead_to_the_verification_under_way(schema):
    for path, is_there in [(START, True), (CONFIRM, False)]:
        content = operation(schema, path)["responses"]["429"]["content"]
        body = content["application/json"]["schema"]
        assert ({"id", "url"} <= set(body["properties"])) is is_there
        assert body["required"] == ["detail", "code"]


def test_url_of_a_verification_may_be_null(schema):
    members = schema["components"]["schemas"]["IdenfyPhoneVerification"]["properties"]
    url = {"type": "string", "nullable": True, "readOnly": True}
    assert members["url"].items() >= url.items()


def test_views_of_the_host_are_described_too(schema):
    start, signup = operation(schema, START), operation(schema, "signup/phone/")
    assert signup["responses"] == start["responses"]
    assert signup["requestBody"] == start["requestBody"]


@pytest.mark.django_db
def test_component_has_the_members_of_an_answer(schema, make):
    components = schema["components"]["schemas"]
    members = components["IdenfyPhoneVerification"]["properties"]
    assert list(members) == list(verification_body(make()))
    assert components["IdenfyPhoneStatus"]["enum"] == Status.values
