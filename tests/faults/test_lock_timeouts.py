"""Our own statements wait for a lock for LOCK_TIMEOUT at most, and only ours do."""

import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from django.db import (
    InternalError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_idenfy_phone import (
    delivery,
    gate,
    heartbeats,
    limits,
    maintenance,
    seen,
    services,
    tallies,
    transactions,
)
from django_idenfy_phone.models import PhoneVerification, ProviderGate, StartLock
from django_idenfy_phone.records import Heartbeat, Tally
from django_idenfy_phone.starting import StartRequest
from support import wire as w
from support.constants import NUMBER
from support.steps import START_URL, named_cases, outcome, post_json, start

pytestmark = pytest.mark.django_db(transaction=True)
rows = PhoneVerification.objects
BODY = {"phone_number": NUMBER}
# SQL to set both timeouts of a connection to seconds, and to read them.
SET_TIMEOUTS = {
    "sqlite": "PRAGMA busy_timeout = {0}000",
    "postgresql": "SET lock_timeout = '{0}s'; "
    "SET idle_in_transaction_session_timeout = '{0}s'",
    "mysql": "SET innodb_lock_wait_timeout = {0}, idle_transaction_timeout = {0}",
}
GET_TIMEOUTS = {
    "sqlite": "PRAGMA busy_timeout",
    "postgresql": "SELECT extract(epoch FROM current_setting(name)::interval)::int "
    "FROM (VALUES ('lock_timeout'), ('idle_in_transaction_session_timeout')) v (name)",
    "mysql": "SELECT @@innodb_lock_wait_timeout UNION ALL "
    "SELECT @@idle_transaction_timeout",
}


@pytest.fixture
def set_timeouts():
    """Set the timeouts of the host, in seconds."""

    def set_timeouts(seconds):
        with connection.cursor() as cursor:
            cursor.execute(SET_TIMEOUTS[connection.vendor].format(seconds))

    yield set_timeouts
    connection.close()


def timeouts():
    """The timeouts that hold now, in seconds."""
    with connection.cursor() as cursor:
        cursor.execute(GET_TIMEOUTS[connection.vendor])
        values = {value for (value,) in cursor.fetchall()}
    return (
        {value / 1000 for value in values} if connection.vendor == "sqlite" else values
    )


@pytest.fixture
def one_second(monkeypatch):
    monkeypatch.setattr(transactions, "LOCK_TIMEOUT", timedelta(seconds=1))


@contextmanager
def locked_for(seconds):
    """Lock NUMBER and all rows of ours in another thread, which is not idle."""
    is_held, is_over = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            limits.lock_and_count(StartRequest(NUMBER, "LT", None, "", "", None), [])
            rows.update(network="")
            ProviderGate.objects.update(account_faults=1)
            Tally.objects.update(count=2)
            Heartbeat.objects.update(beat_at=timezone.now())
            is_held.set()
            is_over.wait(seconds)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    began = time.monotonic()
    yield lambda: time.monotonic() - began
    is_over.set()
    thread.join()


# The status of a row, and what changes it.
CHANGES = {
    "start": ("failed", lambda row: start(row.user)),
    "clear": ("failed", lambda row: services.unblock(phone_number=NUMBER)),
    "claim": ("queued", lambda row: delivery.claim(row)),
    "sent": ("sending", lambda row: rows.mark_sent(row, "r" * 32)),
    "again": ("sending", lambda row: rows.requeue(row, timezone.now())),
    "fail": ("sending", lambda row: rows.fail(row, "unknown", "")),
    "check": ("sent", lambda row: seen.begin_check(row.pk, row.user_id)),
    "verified": ("sent", lambda row: rows.mark_verified(row, timezone.now())),
    "wrong": ("checking", lambda row: rows.mark_wrong(row)),
    "abandon": ("checking", lambda row: rows.abandon_check(row)),
    "refund": ("checking", lambda row: rows.refund_check(row)),
    "announce": ("verified", lambda row: rows.take_announcement(row.pk)),
    "announced": ("verified", lambda row: rows.mark_announced(row)),
    "redeem": ("verified", lambda row: rows.redeem(row.pk, row.user_id, "")),
    "pause": ("sent", lambda row: gate.pause_checks(timezone.now())),
    "success": ("sent", lambda row: gate.end_fault_run()),
    "purge": ("old", lambda row: maintenance.purge()),
    "erase": ("failed", lambda row: maintenance.erase(user=row.user)),
    "forget": ("failed", lambda row: limits.forget("number", NUMBER)),
}


@pytest.fixture
def make_for(make):
    """Store a row, the gate and the locks of NUMBER, so that all can be locked."""

    def make_for(status):
        now = timezone.now()
        services.unblock(phone_number=NUMBER)
        ProviderGate.objects.create(account_faults=1)
        if status == "old":
            return make("expired", created_at=now - timedelta(days=91))
        if status == "late":
            return make("queued", send_by=now)
        if status == "checking":
            return make("sent", checks=1, checking_until=now + timedelta(seconds=20))
        times = {"verified_at": now, "announce_at": now} if status == "verified" else {}
        return make(status, **times)

    return make_for


@pytest.mark.usefixtures("one_second")
@pytest.mark.parametrize(("status", "change"), **named_cases(CHANGES))
def test_change_waits_for_a_lock_for_a_second(make_for, wire, status, change):
    row = make_for(status)
    with locked_for(8) as seconds, pytest.raises(OperationalError) as caught:
        change(row)
    assert transactions.is_lock_timeout(caught.value)
    assert 0.9 < seconds() < 3


@pytest.mark.usefixtures("one_second")
@pytest.mark.parametrize(
    "write",
    [
        lambda: tallies.note_refusal("cooldown", "LT", ""),
        lambda: heartbeats.beat("sweep"),
        lambda: tallies._recount(timezone.now() + timedelta(minutes=1)),
    ],
)
def test_tally_and_heartbeat_wait_for_a_lock_for_a_second(write, clock):
    hour, now = tallies.hour_of(clock.now), clock.now
    key = {"hour": hour, "name": "refused", "reason": "cooldown", "region": "LT"}
    Tally.objects.bulk_create(Tally(**key, shard=n, count=1) for n in range(16))
    names = ("sweep", tallies.MARKER)
    Heartbeat.objects.bulk_create(Heartbeat(name=n, beat_at=now) for n in names)
    with locked_for(8) as seconds, suppress(OperationalError):
        write()
    assert 0.9 < seconds() < 3


@pytest.mark.usefixtures("one_second")
def test_slice_of_late_rows_passes_over_locked_ones(make_for):
    make_for("late")
    with locked_for(8) as seconds:
        if connection.vendor == "sqlite":
            with pytest.raises(OperationalError):
                rows.settle_slice()
        else:
            assert rows.settle_slice() == (0, [])
        assert seconds() < 3


@pytest.mark.usefixtures("one_second")
def test_purge_passes_over_the_lock_of_a_start(make_for):
    """A start holds several, so to wait for one of them could be a deadlock."""
    make_for("failed")
    long_ago = timezone.now() - timedelta(days=31)
    StartLock.objects.update(locked_at=long_ago, cleared_at=None)
    with locked_for(8) as seconds:
        if connection.vendor == "sqlite":
            with pytest.raises(OperationalError):
                maintenance.purge()
        else:
            assert maintenance.purge().locks == 0
            assert seconds() < 1


def test_start_waits_for_a_lock_that_is_released(api, wire):
    with locked_for(0.5) as seconds:
        response = post_json(api, START_URL, BODY)
        # The lock was held for a moment before the time was taken.
        assert seconds() > 0.4
    assert response.status_code == 202


@pytest.mark.parametrize("is_known", [False, True])
def test_shorter_timeout_of_the_host_holds(api, wire, set_timeouts, is_known):
    if is_known:
        services.unblock(phone_number=NUMBER)
    set_timeouts(1)
    with locked_for(8) as seconds:
        response = post_json(api, START_URL, BODY)
        assert 0.9 < seconds() < 3
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert not rows.exists()


@pytest.mark.parametrize("error", [None, KeyError])
@pytest.mark.parametrize(("host", "bound"), [(3, 3), (5, 5), (60, 5)])
def test_bounds_hold_in_own_transaction_only(set_timeouts, host, bound, error):
    set_timeouts(host)
    with suppress(KeyError), transactions.durable_transaction("default") as bounds:
        gate.acquire(bounds)
        assert timeouts() == {bound}
        if error:
            raise error
    assert timeouts() == {host}


def test_caller_keeps_its_timeouts(user, wire, set_timeouts):
    set_timeouts(60)
    with transaction.atomic():
        start(user)
        assert timeouts() == {60}
    assert timeouts() == {60}


@pytest.mark.django_db(transaction=False)
def test_test_of_a_host_keeps_its_timeouts(user, wire):
    before = timeouts()
    delivery.claim(start(user))
    gate.end_fault_run()
    assert timeouts() == before


@pytest.mark.usefixtures("one_second")
def test_start_in_a_transaction_waits_as_the_caller_wants(user, wire, set_timeouts):
    """MariaDB alone can bound a statement without its transaction."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite waits when the caller's transaction begins")
    set_timeouts(3)
    longest = 1 if connection.vendor == "mysql" else 3
    with locked_for(8) as seconds:
        with pytest.raises(OperationalError), transaction.atomic():
            start(user)
        assert longest - 0.1 < seconds() < longest + 1.5


def test_mysql_gets_no_statement_of_mariadb(make, wire, settings, monkeypatch):
    if connection.vendor != "mysql":
        pytest.skip("set DATABASE_URL to a MariaDB server to run this")
    # MariaDB does not know MySQL's way to lock the gate.
    settings.IDENFY_PHONE_SEND_RATE = None
    row = make("queued")
    wire.will(w.answer(200, {"request_id": "r" * 32}))
    monkeypatch.setitem(vars(connections["default"]), "mysql_is_mariadb", False)
    with CaptureQueriesContext(connection) as queries:
        assert delivery.deliver(row.pk) is None
    assert outcome(row) == "sent"
    assert not [each["sql"] for each in queries if each["sql"].startswith("SET")]


def aborted(code):
    """The error of a database with this SQLSTATE, number or name of SQLite."""
    if isinstance(code, int):
        return OperationalError(code, "...")
    error = (InternalError if code == "25P03" else OperationalError)("...")
    error.__cause__ = Exception()
    name = "sqlite_errorname" if code.startswith("SQLITE") else "sqlstate"
    setattr(error.__cause__, name, code)
    return error


@pytest.mark.parametrize("code", ["55P03", 1205, "SQLITE_BUSY"])
def test_lock_timeout_is_not_retried(code):
    assert tries_after(aborted(code)) == 1


@pytest.mark.parametrize(
    "code",
    ["40001", "40P01", "25P03", 1020, 1213, "SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED"],
)
def test_other_abort_is_retried(code):
    assert tries_after(aborted(code)) == transactions.MAX_TRIES


def tries_after(error):
    tries = []

    def work():
        tries.append(error)
        raise error

    with pytest.raises(type(error)):
        transactions.retry_on_abort(work, "default")
    return len(tries)


def test_start_answers_503_where_its_transaction_is_always_ended(api, wire):
    def end(execute, sql, *arguments):
        if "startlock" in sql:
            raise aborted("25P03")
        return execute(sql, *arguments)

    with connection.execute_wrapper(end):
        response = post_json(api, START_URL, BODY)
    assert (response.status_code, response["Retry-After"]) == (503, "2")
