"""A page that lost its verification finds it again, and no other caller finds it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import CooldownActive, VerificationNotFound
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import (
    CURRENT_URL,
    client_of,
    detail_url,
    post_code,
    post_start,
    start,
    status_and_body,
    verification_body,
)

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)
OTHER_NUMBER = "+37061234568"


def current_id(client, url=CURRENT_URL):
    """The id of the current verification, None for a 404."""
    response = client.get(url)
    assert response.status_code == (200 if "id" in response.json() else 404)
    return response.json().get("id")


# GET current/


@pytest.mark.parametrize("status", ["queued", "sending", "sent"])
def test_current_shows_the_live_verification(api, make, status):
    row = make(status)
    left = {"checks_left": 3} if status == "sent" else {}
    body = verification_body(row, **left)
    assert status_and_body(api.get(CURRENT_URL)) == (200, body)


def test_current_is_the_newest_live_one(api, make):
    now = timezone.now()
    rows = [make(created_at=now - age * SECOND) for age in (20, 5, 10)]
    make("failed", failure="unreachable", created_at=now)
    assert current_id(api) == str(rows[1].pk)


@pytest.mark.parametrize("status", ["failed", "expired", "locked"])
def test_ended_verification_is_not_current(api, make, status):
    make(status, failure="unknown" if status == "failed" else "")
    missing = api.get(CURRENT_URL)
    text = "There is no such verification."
    assert status_and_body(missing) == (404, {"detail": text, "code": "not_found"})


PAST = {
    "queued": {"send_by": -SECOND},
    "sending": {"lease_until": -SECOND},
    "sent": {"expires_at": -SECOND},
}


@pytest.mark.parametrize("status", PAST)
def test_late_verification_is_not_current_before_a_sweep(api, make, status):
    times = {name: timezone.now() + age for name, age in PAST[status].items()}
    make(status, **times)
    assert current_id(api) is None


def test_verification_without_checks_left_is_not_current(api, make):
    make(checks=3, checks_wrong=3)
    assert current_id(api) is None


def test_verification_whose_last_check_is_under_way_is_current(api, make):
    soon = timezone.now() + 9 * SECOND
    row = make(checks=3, checks_wrong=2, checking_until=soon, expires_at=timezone.now())
    assert current_id(api) == str(row.pk)


def test_live_verification_comes_before_a_newer_proof(api, make):
    live = make(created_at=timezone.now() - 60 * SECOND)
    make("verified", verified_at=timezone.now())
    assert current_id(api) == str(live.pk)


def test_newest_proof_is_current_without_a_live_one(api, make):
    ages = (20, 5, 10)
    rows = [make("verified", verified_at=timezone.now() - s * SECOND) for s in ages]
    assert current_id(api) == str(rows[1].pk)


@pytest.mark.parametrize(
    "fields", [{"redeemed_at": 0 * SECOND}, {"verified_at": timedelta(minutes=-16)}]
)
def test_redeemed_or_old_proof_is_not_current(api, make, fields):
    now = timezone.now()
    times = {"verified_at": now} | {name: now + age for name, age in fields.items()}
    make("verified", **times)
    assert current_id(api) is None


def test_current_is_of_the_purpose_of_its_mount(api, make, custom_host):
    rows = [make(purpose=purpose) for purpose in ("", "signup", "other")]
    assert current_id(api, "/phones/current/") == str(rows[0].pk)
    assert current_id(api, "/signup/current/") == str(rows[1].pk)


def test_verification_of_another_user_is_not_current(make, other_user):
    make()
    make("verified", verified_at=timezone.now())
    assert current_id(client_of(other_user)) is None


def test_visitor_has_no_current_verification(visitor, make):
    make(user=None, is_anonymous=True)
    proof = {"user": None, "is_anonymous": True, "verified_at": timezone.now()}
    make("verified", **proof)
    assert current_id(visitor) is None
    with pytest.raises(VerificationNotFound):
        services.get_current(user=None)


def test_anonymous_verification_is_nobody_s_current_one(api, make):
    make(user=None, is_anonymous=True)
    proof = {"user": None, "is_anonymous": True, "verified_at": timezone.now()}
    make("verified", **proof)
    assert current_id(api) is None


# A second start


def links(response):
    """What a 429 tells of a verification."""
    assert response.status_code == 429
    return {name: response.json().get(name) for name in ("id", "url")}


def links_to(row):
    return {"id": str(row.pk), "url": detail_url(row)}


NO_LINKS = {"id": None, "url": None}


@pytest.mark.parametrize("status", ["queued", "sending", "sent"])
def test_cooldown_leads_its_user_to_the_live_verification(
    api, make, idenfy_sandbox, status
):
    row = make(status)
    refused = post_start(api)
    assert (refused.json()["code"], links(refused)) == ("cooldown", links_to(row))


def test_limit_leads_its_user_to_the_live_verification(
    api, make, idenfy_sandbox, settings
):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("1/h",)}
    row = make(created_at=timezone.now() - timedelta(minutes=9))
    refused = post_start(api)
    assert (refused.json()["code"], links(refused)) == ("limit_reached", links_to(row))


def test_refusal_leads_to_no_verification_that_ended(api, make, idenfy_sandbox):
    make("locked", checks=3)
    make("verified", verified_at=timezone.now())
    assert links(post_start(api)) == NO_LINKS


def test_refusal_leads_to_no_verification_of_another_number(
    api, make, idenfy_sandbox, settings
):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("1/h",)}
    make(phone_number=OTHER_NUMBER)
    assert links(post_start(api)) == NO_LINKS


def test_refusal_leads_to_no_verification_of_another_purpose(
    api, make, idenfy_sandbox, custom_host
):
    row = make(purpose="signup")
    assert links(post_start(api, "/phones/start/")) == NO_LINKS
    url = f"/phones/{row.pk}/"
    assert links(post_start(api, "/signup/")) == {"id": str(row.pk), "url": url}


def test_refusal_leads_no_stranger_to_the_verification(
    make, idenfy_sandbox, other_user
):
    make()
    assert links(post_start(client_of(other_user))) == NO_LINKS


def test_refusal_leads_no_visitor_to_a_verification(visitor, make, idenfy_sandbox):
    make(user=None, is_anonymous=True)
    assert links(post_start(visitor)) == NO_LINKS


def test_refusal_leads_no_user_to_a_visitor_s_verification(api, make, idenfy_sandbox):
    make(user=None, is_anonymous=True)
    assert links(post_start(api)) == NO_LINKS


def test_envelope_of_the_host_gets_no_links(api, make, settings, idenfy_sandbox):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "hosts.custom.replace_body"}
    make()
    assert post_start(api).json() == {"error": {"code": "cooldown", "status": 1}}


def test_service_tells_the_id_of_the_live_verification(user, make, idenfy_sandbox):
    row = make()
    with pytest.raises(CooldownActive) as caught:
        start(user)
    assert caught.value.verification_id == row.pk


# A second start never costs the first


def test_code_of_a_verification_works_after_a_refused_start(api, idenfy_sandbox):
    first = post_start(api).json()
    code = idenfy_sandbox.code_for(NUMBER)
    assert links(post_start(api))["id"] == first["id"]
    row = PhoneVerification.objects.get()
    assert post_code(api, row, code).json()["is_verified"] is True


def test_code_of_a_verification_works_after_a_failed_start(
    api, idenfy_sandbox, settings
):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)
    first = post_start(api).json()
    code = idenfy_sandbox.code_for(NUMBER)
    second = post_start(api).json()
    assert current_id(api) == second["id"] != first["id"]
    failed = PhoneVerification.objects.filter(pk=second["id"])
    failed.update(status="failed", failure="unreachable")
    assert current_id(api) == first["id"]
    row = PhoneVerification.objects.get(pk=first["id"])
    assert post_code(api, row, code).json()["is_verified"] is True
