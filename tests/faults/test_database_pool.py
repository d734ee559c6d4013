"""No connection to the database is kept while iDenfy is asked, where it is pooled."""

import threading
from functools import partial

import pytest
from django.db import connection, connections
from django.db.backends.signals import connection_created

from django_idenfy_phone import delivery, services
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.transactions import give_back_connection
from support import wire as w
from support.brokers import wait_until
from support.constants import NUMBER
from support.steps import outcome, post_start

pytestmark = pytest.mark.django_db(transaction=True)
SENT = w.answer(200, {"request_id": "r" * 32})
CALLS = {
    "queued": (SENT, lambda row: delivery.deliver(row.pk)),
    "sent": (
        w.answer(200, {"is_verified": True}),
        lambda row: services.confirm_verification(row.pk, "1234", user=row.user),
    ),
}


@pytest.fixture
def pool_of_two(monkeypatch):
    """The host's connections come from a pool that gives up after two seconds."""
    pytest.importorskip("psycopg_pool", reason="pip install psycopg[pool] to run this")
    if connection.vendor != "postgresql":
        pytest.skip("set DATABASE_URL to a PostgreSQL server to run this")
    own = connections["default"]
    pool = {"min_size": 1, "max_size": 2, "timeout": 2}
    connection.close()
    monkeypatch.setitem(own.settings_dict, "CONN_MAX_AGE", 0)
    monkeypatch.setitem(own.settings_dict["OPTIONS"], "pool", pool)
    yield
    connection.close()
    own.close_pool()


@pytest.fixture
def slow(wire):
    """iDenfy answers only when the returned event is set."""
    released = threading.Event()

    def hold(answer, sock):
        released.wait(30)
        answer(sock)

    wire.will_hold = lambda answer: wire.will(partial(hold, answer))
    wire.released = released
    yield wire
    released.set()


@pytest.mark.usefixtures("pool_of_two")
@pytest.mark.parametrize("status", CALLS)
def test_slow_calls_keep_no_pooled_connection(make, slow, at_once, status):
    answer, call = CALLS[status]
    made = [make(status) for _ in range(4)]
    slow.will_hold(answer)
    connection.close()
    calls = threading.Thread(target=at_once, args=(call, made))
    calls.start()
    wait_until(lambda: len(slow.requests) == 4, seconds=10)
    assert PhoneVerification.objects.count() == 4
    connection.close()
    slow.released.set()
    calls.join()


@pytest.mark.usefixtures("pool_of_two")
def test_no_connection_is_taken_to_be_given_back():
    def receiver(**kwargs):
        taken.append(1)

    taken = []
    connection_created.connect(receiver)
    try:
        give_back_connection("default")
    finally:
        connection_created.disconnect(receiver)
    assert taken == []


@pytest.mark.usefixtures("pool_of_two")
def test_start_guard_keeps_no_pooled_connection(api, user, wire, settings):
    def guard(request, phone_number):
        kept.append(connection.connection)

    kept = []
    settings.IDENFY_PHONE_START_GUARD = guard
    assert user.is_authenticated
    assert PhoneVerification.objects.count() == 0
    assert post_start(api).status_code == 202
    assert kept == [None]


@pytest.mark.usefixtures("pool_of_two")
def test_start_loses_nothing_that_is_not_committed(user, wire, settings, rf):
    settings.IDENFY_PHONE_START_GUARD = lambda request, phone_number: None
    request = rf.post("/")
    request.user = user
    connection.set_autocommit(False)
    try:
        type(user).objects.update(first_name="Ona")
        services.start_for_request(request, NUMBER)
        connection.commit()
    finally:
        connection.rollback()
        connection.set_autocommit(True)
    user.refresh_from_db()
    assert (user.first_name, PhoneVerification.objects.count()) == ("Ona", 1)


@pytest.mark.django_db(transaction=False)
def test_test_of_a_host_keeps_its_connection(make, wire, monkeypatch):
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "pool", True)
    wire.will(SENT)
    row = make("queued")
    delivery.deliver(row.pk)
    assert outcome(row) == "sent"


@pytest.mark.parametrize("status", CALLS)
def test_persistent_connection_stays_open(make, wire, status):
    answer, call = CALLS[status]
    wire.will(answer)
    row = make(status)
    before = connection.connection
    call(row)
    assert connection.connection is before
