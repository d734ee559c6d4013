"""No beat, broker, result backend or cache: what must come true all the same."""

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

pytestmark = pytest.mark.django_db
BODY = {"phone_number": NUMBER}


@pytest.mark.parametrize(
    ("status", "passed", "shown"),
    [
        ("queued", timedelta(minutes=3), ("failed", "not_sent")),
        ("sending", timedelta(seconds=45), ("failed", "maybe_sent")),
        ("sent", timedelta(minutes=10), ("expired", None)),
    ],
)
def test_a_status_settles_what_it_reads(make, api, status, passed, shown):
    row = make(status)
    age(row, passed)
    answer = api.get(f"/phone/{row.pk}/").json()
    assert (answer["status"], answer["failure"]) == shown


@pytest.mark.parametrize(
    ("status", "passed", "code"),
    [
        ("queued", timedelta(minutes=3), "failed"),
        ("sending", timedelta(seconds=45), "failed"),
        ("sent", timedelta(minutes=10), "expired"),
    ],
)
def test_a_confirm_settles_what_it_reads(make, api, wire, status, passed, code):
    row = make(status)
    age(row, passed)
    answer = api.post(f"/phone/{row.pk}/confirm/", {"code": "1234"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (410, code)


def test_a_stranger_settles_nothing(make, api, django_user_model):
    row = make("queued", user=django_user_model.objects.create_user("rasa"))
    age(row, timedelta(minutes=3))
    assert api.get(f"/phone/{row.pk}/").status_code == 404
    row.refresh_from_db()
    assert row.status == "queued"


@pytest.fixture
def app():
    """The Celery app, as it was before, afterwards."""
    app = tasks.send_code.app
    names = ("broker_url", "broker_write_url", "result_backend")
    before = {name: app.conf[name] for name in names}
    yield app
    app.conf.update(before)
    tasks._drop_links()


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_stays_away_costs_the_start_and_nothing_else(api, wire, app):
    app.conf.broker_url = app.conf.broker_write_url = "redis://127.0.0.1:1/0"
    tasks._drop_links()
    started = api.post("/phone/start/", BODY, format="json")
    assert started.status_code == 202
    age(PhoneVerification.objects.get(), timedelta(minutes=4))
    answer = api.get(started["Location"]).json()
    assert (answer["status"], answer["failure"]) == ("failed", "not_sent")
    assert wire.requests == []


@pytest.mark.django_db(transaction=True)
def test_a_dead_result_backend_is_not_noticed(user, wire, app, at_once, caplog):
    app.conf.result_backend = "redis://127.0.0.1:1/0"
    # In a thread of its own, where no backend of before is remembered.
    at_once(lambda _: services.start_verification(NUMBER, user=user), [1])
    assert "Publishing failed" not in caplog.text
    assert tasks.send_code.ignore_result
    assert tasks.sweep.ignore_result


class NoCache(BaseCache):
    def __init__(self, location, params):
        super().__init__(params)

    def refuse(self, *args, **kwargs):
        raise ConnectionError("the cache is down")

    add = get = set = touch = delete = clear = refuse


def test_a_cache_that_is_down_is_not_noticed(user, wire, settings):
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.NoCache"}}
    with pytest.raises(ConnectionError):
        cache.get("anything")
    wire.will(
        w.answer(200, {"request_id": "r" * 32}),
        w.answer(200, {"is_verified": True}),
    )
    row = services.start_verification(NUMBER, user=user, network="8.8.8.8")
    with pytest.raises(CooldownActive):
        services.start_verification(NUMBER, user=user, network="8.8.8.8")
    tasks.send_code(str(row.pk))
    services.confirm_verification(row.pk, "1234", user=user)
    assert services.redeem_verification(row, user=user).is_verified
