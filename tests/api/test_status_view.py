"""The status view shows the whole of a verification, in each of its states."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from support.steps import detail_url, status_and_body, utc_text, verification_body

pytestmark = pytest.mark.django_db

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
def test_status_answers_the_whole_verification(api, make, status, fields, changes):
    row = make(status, **fields)
    body = verification_body(row, **changes)
    assert status_and_body(api.get(detail_url(row))) == (200, body)


@pytest.mark.parametrize(
    ("failure", "public_failure", "seconds"),
    [
        ("number_refused", "number_refused", 60),
        ("account", "not_sent", 10),
        ("unreachable", "not_sent", 10),
        ("rate_limited", "not_sent", 10),
        ("too_late", "not_sent", 10),
        ("unknown", "maybe_sent", 60),
    ],
)
def test_status_shows_only_the_public_failure(
    api, make, failure, public_failure, seconds
):
    row = make("failed", failure=failure, provider_code="PARTNER_CONTRACT_ERROR")
    resend_at = utc_text(row.created_at + timedelta(seconds=seconds))
    body = verification_body(
        row, failure=public_failure, code_spent=True, resend_at=resend_at
    )
    assert status_and_body(api.get(detail_url(row))) == (200, body)


def test_purpose_is_shown(api, make):
    row = make(purpose="signup")
    assert api.get(detail_url(row)).json()["purpose"] == "signup"


def test_status_view_sends_no_request_to_idenfy(api, make, wire):
    api.get(detail_url(make()))
    assert wire.requests == []


def test_row_past_its_expiry_is_shown_as_expired(api, make):
    row = make(expires_at=timezone.now() - timedelta(seconds=1))
    assert api.get(detail_url(row)).json()["status"] == "expired"


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/New_York"])
@pytest.mark.parametrize("time_format", [None, "iso-8601", "%d/%m/%Y"])
def test_times_are_iso_8601_in_utc(api, make, settings, zone, time_format):
    settings.TIME_ZONE = zone
    settings.REST_FRAMEWORK = {"DATETIME_FORMAT": time_format}
    created_at = datetime(2025, 3, 30, 0, 59, 30, tzinfo=UTC)
    expires_at = created_at + timedelta(minutes=10)
    row = make("verified", created_at=created_at, expires_at=expires_at)
    body = api.get(detail_url(row)).json()
    assert [body["created_at"], body["resend_at"], body["expires_at"]] == [
        "2025-03-30T00:59:30Z",
        "2025-03-30T01:00:30Z",
        "2025-03-30T01:09:30Z",
    ]


def test_times_are_utc_while_another_time_zone_is_active(api, make):
    row = make(created_at=datetime(2025, 3, 30, 1, 0, tzinfo=UTC))
    with timezone.override("Asia/Kathmandu"):
        body = api.get(detail_url(row)).json()
    assert body["created_at"] == "2025-03-30T01:00:00Z"
