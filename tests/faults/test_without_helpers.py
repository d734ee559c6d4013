"""Verification works without beat, broker, result backend and cache."""

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache

from django_idenfy_phone import services, tasks
from django_idenfy_phone.exceptions import CooldownActive
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.testing import age
from support import wire as w
from support.constants import NUMBER
from support.steps import START_URL, post_json, start

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("status", "elapsed", "expected"),
    [
        ("queued", timedelta(minutes=3), ("failed", "not_sent")),
        ("sending", timedelta(seconds=45), ("failed", "maybe_sent")),
        ("sent", timedelta(minutes=10), ("expired", None)),
    ],
)
def test_status_request_ends_overdue_row(make, api, status, elapsed, expected):
    row = make(status)
    age(row, elapsed)
    body = api.get(f"/phone/{row.pk}/").json()
    assert (body["status"], body["failure"]) == expected


@pytest.mark.parametrize(
    ("status", "elapsed", "code"),
    [
        ("queued", timedelta(minutes=3), "failed"),
        ("sending", timedelta(seconds=45), "failed"),
        ("sent", timedelta(minutes=10), "expired"),
    ],
)
def test_confirm_ends_overdue_row(make, api, wire, status, elapsed, code):
    row = make(status)
    age(row, elapsed)
    response = post_json(api, f"/phone/{row.pk}/confirm/", {"code": "1234"})
    assert (response.status_code, response.json()["code"]) == (410, code)


def test_request_of_other_user_ends_no_row(make, api, django_user_model):
    row = make("queued", user=django_user_model.objects.create_user("rasa"))
    age(row, timedelta(minutes=3))
    assert api.get(f"/phone/{row.pk}/").status_code == 404
    row.refresh_from_db()
    assert row.status == "queued"


@pytest.mark.django_db(transaction=True)
def test_start_without_broker_ends_as_not_sent(api, wire, celery_app):
    celery_app.use("redis://127.0.0.1:1/0")
    started = post_json(api, START_URL, {"phone_number": NUMBER})
    assert started.status_code == 202
    age(PhoneVerification.objects.get(), timedelta(minutes=4))
    body = api.get(started["Location"]).json()
    assert (body["status"], body["failure"]) == ("failed", "not_sent")
    assert wire.requests == []


@pytest.mark.django_db(transaction=True)
def test_unreachable_result_backend_changes_nothing(
    user, wire, celery_app, at_once, caplog
):
    celery_app.app.conf.result_backend = "redis://127.0.0.1:1/0"
    # A new thread has no result backend from an earlier test.
    at_once(lambda _: start(user), [1])
    assert "Publishing failed" not in caplog.text
    assert tasks.send_code.ignore_result
    assert tasks.sweep.ignore_result


class FailingCache(BaseCache):
    def __init__(self, location, params):
        super().__init__(params)

    def fail(self, *args, **kwargs):
        raise ConnectionError("the cache is down")

    add = get = set = touch = delete = clear = fail


def test_failing_cache_changes_nothing(user, wire, settings):
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.FailingCache"}}
    with pytest.raises(ConnectionError):
        cache.get("anything")
    wire.will(
        w.answer(200, {"request_id": "r" * 32}),
        w.answer(200, {"is_verified": True}),
    )
    row = start(user, network="8.8.8.8")
    with pytest.raises(CooldownActive):
        start(user, network="8.8.8.8")
    tasks.send_code(str(row.pk))
    services.confirm_verification(row.pk, "1234", user=user)
    assert services.redeem_verification(row, user=user).is_verified
