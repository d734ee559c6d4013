"""Behind PgBouncer in transaction mode, nothing is lost and nothing leaks."""

import time
from datetime import timedelta

import pytest
from django.db import connection

from django_idenfy_phone import delivery, transactions
from django_idenfy_phone.models import PhoneVerification, ProviderGate
from support import wire as w
from support.databases import after_statement
from support.steps import outcome, post_code, post_start, status_and_body

pytestmark = pytest.mark.django_db(transaction=True)
SETTINGS = "lock_timeout", "idle_in_transaction_session_timeout", "synchronous_commit"


@pytest.fixture(autouse=True)
def _pgbouncer(pytestconfig):
    if not pytestconfig.getoption("pgbouncer"):
        pytest.skip("give --pgbouncer to run this")


def value_of(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def session(_=None):
    return value_of("SELECT pg_backend_pid()")


def session_settings():
    return [value_of(f"SHOW {name}") for name in SETTINGS]


@pytest.fixture
def weak_commits():
    connection.cursor().execute("SET synchronous_commit = off")
    yield
    connection.cursor().execute("RESET synchronous_commit")


def test_clients_share_sessions(at_once):
    assert at_once(session, [1]) == at_once(session, [2]) == [session()]


@pytest.mark.usefixtures("weak_commits")
def test_number_is_confirmed_and_the_session_is_as_before(api, wire):
    wire.will(
        w.answer(200, {"request_id": "r" * 32}), w.answer(200, {"is_verified": True})
    )
    before = session(), session_settings()
    assert post_start(api).status_code == 202
    row = PhoneVerification.objects.get()
    assert delivery.deliver(row.pk) is None
    status, body = status_and_body(post_code(api, row))
    assert (status, body["is_verified"]) == (200, True)
    assert (session(), session_settings()) == before


@pytest.fixture
def freeze_after(monkeypatch):
    """Pause for longer than LOCK_TIMEOUT after the next statement with a word."""
    monkeypatch.setattr(transactions, "LOCK_TIMEOUT", timedelta(seconds=1))
    with after_statement(lambda: time.sleep(1.5)) as freeze_after:
        yield freeze_after


@pytest.mark.parametrize("word", ["startlock", "providergate"])
def test_start_that_froze_with_its_locks_is_done_again(api, wire, freeze_after, word):
    freeze_after(word)
    assert post_start(api).status_code == 202
    assert PhoneVerification.objects.get().status == "queued"


def test_claim_that_froze_with_its_locks_is_done_again(make, wire, freeze_after):
    wire.will(w.answer(200, {"request_id": "r" * 32}))
    ProviderGate.objects.create()
    row = make("queued")
    freeze_after("acquired_at")
    assert delivery.deliver(row.pk) is None
    assert (outcome(row), row.send_attempts, len(wire.requests)) == ("sent", 1, 1)
