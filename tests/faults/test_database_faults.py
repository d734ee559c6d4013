"""A database that goes away, aborts or lags while money is at stake."""

import threading
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import pytest
from django.db import (
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.utils import timezone

from django_idenfy_phone import delivery, limits, maintenance, services, transactions
from django_idenfy_phone.exceptions import (
    CheckUnknown,
    CooldownActive,
    ProviderUnavailable,
    VerificationError,
    VerificationExpired,
)
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.testing import age
from support import wire as w
from support.constants import NUMBER

pytestmark = pytest.mark.django_db(transaction=True)
SENT = w.answer(200, {"request_id": "r" * 32})
LIMITED = w.refusal(429, "TOO_MANY_REQUESTS")
REFUSED = w.answer(401)
TRUE = w.answer(200, {"is_verified": True})
FALSE = w.answer(200, {"is_verified": False})
KILL_OTHERS = {
    "postgresql": """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """,
    "mysql": """
        SELECT CONCAT('KILL ', id) FROM information_schema.processlist
        WHERE db = DATABASE() AND id <> CONNECTION_ID()
    """,
}


def kill_all_connections():
    """What a restart of the database does to its clients."""
    with connection.cursor() as cursor:
        cursor.execute(KILL_OTHERS[connection.vendor])
        if connection.vendor == "mysql":
            for (statement,) in cursor.fetchall():
                cursor.execute(statement)
    connection.close()


@pytest.fixture
def lose_the_database(settings):
    """Make an act that loses the connection before it answers."""
    if connection.vendor not in KILL_OTHERS:
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")

    def lose(answer):
        def act(sock):
            kill_all_connections()
            answer(sock)

        return act

    return lose


@pytest.fixture
def aborting():
    """Abort the next statements that name a word, as a deadlock would."""
    left = {"times": 0, "word": ""}

    def wrapper(execute, sql, params, many, context):
        if left["word"] in sql and left["times"] > 0:
            left["times"] -= 1
            raise OperationalError(1213, "Deadlock found")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield lambda times, word: left.update(times=times, word=word)
        left["times"] = 0


def status(row):
    row.refresh_from_db()
    return row.status


def test_a_claim_that_failed_is_made_by_the_next_hint(
    make, wire, at_once, lose_the_database
):
    wire.will(SENT)
    row = make("queued")
    at_once(lose_the_database(lambda sock: None), [None])
    with pytest.raises((OperationalError, InterfaceError)):
        delivery.deliver(row.pk)
    connection.close()
    assert (status(row), row.send_attempts) == ("queued", 0)
    for pk in maintenance.due():
        delivery.deliver(pk)
    assert (status(row), len(wire.requests)) == ("sent", 1)


def test_a_send_is_written_down_on_a_new_connection(make, wire, lose_the_database):
    wire.will(lose_the_database(SENT))
    row = make("queued")
    delivery.deliver(row.pk)
    assert (status(row), len(wire.requests)) == ("sent", 1)


def test_a_refusal_is_written_down_too(make, wire, lose_the_database):
    wire.will(lose_the_database(w.answer(401)))
    row = make("queued")
    delivery.deliver(row.pk)
    assert (status(row), row.failure) == ("failed", "account")


def test_a_true_is_written_down_on_a_new_connection(make, wire, lose_the_database):
    wire.will(lose_the_database(TRUE))
    row = make("sent")
    confirmed = services.confirm_verification(row.pk, "1234", user=row.user)
    assert confirmed.is_verified


@pytest.mark.parametrize(
    ("answer", "error", "checks_left"),
    [
        (FALSE, None, 2),
        (LIMITED, ProviderUnavailable, 3),
        (REFUSED, ProviderUnavailable, 3),
        (w.hang_up, CheckUnknown, 2),
    ],
)
def test_what_became_of_a_check_is_written_down_too(
    make, wire, lose_the_database, answer, error, checks_left
):
    wire.will(lose_the_database(answer))
    row = make("sent")
    with pytest.raises(error) if error else nullcontext():
        services.confirm_verification(row.pk, "1234", user=row.user)
    assert (status(row), row.checks_left) == ("sent", checks_left)
    assert row.checking_until is None


def test_a_database_that_is_away_for_a_while_is_waited_for(
    make, wire, lose_the_database
):
    """After a failover to a server that only reads at first."""
    if connection.vendor != "postgresql":
        pytest.skip("set DATABASE_URL to a PostgreSQL server to run this")
    row = make("queued")
    recovery = threading.Timer(1.5, lambda: (set_read_only(False), connection.close()))

    def fail_over(sock):
        set_read_only(True)
        recovery.start()
        lose_the_database(SENT)(sock)

    wire.will(fail_over)
    began = time.monotonic()
    try:
        delivery.deliver(row.pk)
    finally:
        recovery.join()
    assert time.monotonic() - began > 1.5
    assert (status(row), len(wire.requests)) == ("sent", 1)


def set_read_only(is_on):
    """Of each connection that is opened from now on."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(
            f"ALTER DATABASE {connection.settings_dict['NAME']} "
            f"SET default_transaction_read_only = {'on' if is_on else 'off'}"
        )


def test_a_database_that_stays_away_after_a_send_leaves_it_unknown(
    make, wire, aborting, monkeypatch
):
    monkeypatch.setattr("django_idenfy_phone.transactions.PATIENCE", 0.5)
    row = make("queued")

    def act(sock):
        aborting(1000, "UPDATE")
        SENT(sock)

    wire.will(act)
    with pytest.raises(OperationalError):
        delivery.deliver(row.pk)
    assert status(row) == "sending"
    aborting(0, "")
    age(row, timedelta(seconds=45))
    PhoneVerification.objects.settle()
    delivery.deliver(row.pk)
    assert (status(row), row.failure, len(wire.requests)) == ("failed", "unknown", 1)


@pytest.mark.parametrize("answer", [TRUE, FALSE])
def test_a_database_that_stays_away_verifies_nothing(
    make, wire, aborting, monkeypatch, answer
):
    monkeypatch.setattr("django_idenfy_phone.transactions.PATIENCE", 0.5)
    row = make("sent")

    def act(sock):
        aborting(1000, "UPDATE")
        answer(sock)

    wire.will(act)
    started = time.monotonic()
    with pytest.raises(CheckUnknown):
        services.confirm_verification(row.pk, "1234", user=row.user)
    assert time.monotonic() - started < 5
    assert (status(row), row.checks, row.is_verified) == ("sent", 1, False)


@pytest.mark.parametrize("times", [1, 3, 5])
def test_an_aborted_start_is_tried_again(api, wire, aborting, times):
    aborting(times, "startlock")
    answer = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
    assert answer.status_code == 202
    assert PhoneVerification.objects.count() == 1


def test_a_start_that_is_aborted_again_and_again_is_a_clean_503(api, wire, aborting):
    aborting(1000, "startlock")
    answer = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert answer.json()["code"] == "provider_unavailable"
    assert not PhoneVerification.objects.exists()


def test_an_aborted_check_is_taken_once(make, api, wire, aborting):
    wire.will(FALSE)
    row = make("sent")
    aborting(2, "UPDATE")
    answer = api.post(f"/phone/{row.pk}/confirm/", {"code": "1234"}, format="json")
    assert (answer.status_code, answer.json()["checks_left"]) == (200, 2)
    assert len(wire.requests) == 1


def test_a_check_that_is_aborted_again_and_again_is_a_clean_503(
    make, api, wire, aborting
):
    row = make("sent")
    aborting(1000, "UPDATE")
    answer = api.post(f"/phone/{row.pk}/confirm/", {"code": "1234"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")
    assert (status(row), row.checks, wire.requests) == ("sent", 0, [])


def test_an_aborted_refund_is_made_once(make, user, wire, aborting):
    row = make("sent")

    def act(sock):
        aborting(2, "UPDATE")
        LIMITED(sock)

    wire.will(act)
    with pytest.raises(ProviderUnavailable):
        services.confirm_verification(row.pk, "1234", user=user)
    assert (status(row), row.checks, row.checks_refunded) == ("sent", 1, 1)


def test_an_aborted_claim_is_taken_once(make, wire, aborting):
    wire.will(SENT)
    row = make("queued")
    aborting(3, "UPDATE")
    delivery.deliver(row.pk)
    assert (status(row), row.send_attempts, len(wire.requests)) == ("sent", 1, 1)


# What the database itself aborts

IMPATIENCE = {
    "sqlite": (0.2, "PRAGMA busy_timeout = 200"),
    "postgresql": (0.2, "SET lock_timeout = 200"),
    "mysql": (1.0, "SET innodb_lock_wait_timeout = 1"),
}


@pytest.fixture
def patience():
    """How long, in seconds, this test's connection waits for a lock."""
    seconds, statement = IMPATIENCE[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(statement)
    yield seconds
    connection.close()


@contextmanager
def locked_number(seconds):
    """As by a start that hangs."""
    is_held, is_over = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            limits.lock(limits.Claim(NUMBER, NUMBER[:-4], None, ""))
            is_held.set()
            is_over.wait(seconds)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    yield
    is_over.set()
    thread.join()


def test_a_lock_that_is_freed_in_time_is_only_a_wait(api, wire, patience):
    with locked_number(3 * patience):
        began = time.monotonic()
        answer = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
        assert time.monotonic() - began > patience
    assert answer.status_code == 202


def test_a_lock_that_is_never_freed_is_a_clean_503(api, wire, patience):
    with locked_number(60):
        answer = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert not PhoneVerification.objects.exists()


@pytest.fixture
def clash(at_once):
    """Run two transactions, each of which has begun before either goes on."""
    if connection.vendor not in KILL_OTHERS:
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")
    now = timezone.now()
    for key in "ab":
        StartLock.objects.create(key=key, locked_at=now)

    def clash(begin, go_on, level="READ COMMITTED"):
        both = threading.Barrier(2)
        tries = Counter()

        def work(order):
            tries[order] += 1
            with transaction.atomic():
                begin(order[0])
                if tries[order] == 1:
                    both.wait()
                go_on(order[1])

        def run(order):
            isolate(level)
            transactions.retried(lambda: work(order), "default")

        at_once(run, ["ab", "ba"])
        return tries.total()

    return clash


def touch(key):
    StartLock.objects.filter(key=key).update(locked_at=timezone.now())


def test_a_deadlock_is_tried_again(clash):
    assert clash(touch, touch) == 3


STRICTLY = {
    "postgresql": ["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {}"],
    # Newer MariaDB has the first by default.
    "mysql": [
        "SET SESSION innodb_snapshot_isolation = ON",
        "SET SESSION TRANSACTION ISOLATION LEVEL {}",
    ],
}


def isolate(level):
    """This thread's connection, from its next transaction on."""
    with connection.cursor() as cursor:
        for statement in STRICTLY[connection.vendor]:
            cursor.execute(statement.format(level))


def test_a_serialization_failure_is_tried_again(clash):
    def look(key):
        StartLock.objects.get(key=key)

    def go_on(key):
        touch("a")

    assert clash(look, go_on, "REPEATABLE READ") == 3


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_20_starts_are_one_sms_under_a_stricter_isolation(user, wire, at_once, level):
    if connection.vendor not in STRICTLY:
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")

    def attempt(_):
        isolate(level)
        try:
            return services.start_verification(NUMBER, user=user).status
        except CooldownActive:
            return "cooldown"
        except OperationalError as error:
            return "aborted" if transactions.is_definite_abort(error) else error

    results = Counter(at_once(attempt, range(20)))
    assert results["queued"] == 1
    assert results["cooldown"] + results["aborted"] == 19
    assert PhoneVerification.objects.count() == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_20_checks_are_three_under_a_stricter_isolation(make, wire, at_once, level):
    if connection.vendor not in STRICTLY:
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")
    row = make("sent")

    def attempt(_):
        isolate(level)
        try:
            return services.confirm_verification(row.pk, "1234", user=row.user)
        except VerificationError:
            return None
        except OperationalError as error:
            return None if transactions.is_definite_abort(error) else error

    wire.will(FALSE)
    assert set(at_once(attempt, range(20))) <= {None, row}
    row.refresh_from_db()
    assert 1 <= row.checks == row.checks_wrong == len(wire.requests) <= 3


@pytest.mark.parametrize("name", ["sqlstate", "pgcode"])
@pytest.mark.parametrize(
    ("state", "is_abort"), [("40001", True), ("40P01", True), ("57P01", False)]
)
def test_an_abort_is_known_by_its_state(name, state, is_abort):
    """As psycopg tells it, and psycopg2."""
    error = OperationalError("...")
    error.__cause__ = Exception()
    setattr(error.__cause__, name, state)
    assert transactions.is_definite_abort(error) is is_abort


# Clocks


def started(user):
    return services.start_verification(NUMBER, user=user)


def test_a_worker_ten_minutes_behind_sends_at_once(user, wire):
    wire.will(SENT)
    row = started(user)
    age(row, -timedelta(minutes=9, seconds=50))
    delivery.deliver(row.pk)
    assert (status(row), len(wire.requests)) == ("sent", 1)


def test_a_worker_ten_minutes_ahead_pays_for_nothing(user, wire):
    row = started(user)
    age(row, timedelta(minutes=10))
    delivery.deliver(row.pk)
    assert (status(row), row.failure, wire.requests) == ("failed", "too_late", [])


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_wrong_clock_during_a_send_never_sends_again(user, wire, minutes):
    row = started(user)

    def act(sock):
        age(row, timedelta(minutes=minutes))
        PhoneVerification.objects.settle()
        connections.close_all()
        SENT(sock)

    wire.will(act)
    for _ in range(3):
        delivery.deliver(row.pk)
    assert len(wire.requests) == 1
    # Ahead, its lease was over, and the true answer lifted it.
    assert status(row) == "sent"


def test_a_clock_ahead_ends_a_code_early(make, user, wire, clock):
    row = make("sent")
    clock.now += timedelta(minutes=10)
    with pytest.raises(VerificationExpired):
        services.confirm_verification(row.pk, "1234", user=user)
    clock.now -= timedelta(minutes=10)
    assert (status(row), wire.requests) == ("expired", [])


def test_a_clock_behind_ends_a_code_late_and_verifies_nothing_by_itself(
    make, user, wire, clock
):
    wire.will(FALSE)
    row = make("sent")
    age(row, timedelta(minutes=15))
    clock.now -= timedelta(minutes=10)
    confirmed = services.confirm_verification(row.pk, "1234", user=user)
    assert (confirmed.status, confirmed.is_verified) == ("sent", False)


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_hint_from_a_wrong_clock_is_as_good(user, wire, clock, minutes):
    clock.now += timedelta(minutes=minutes)
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="2"), SENT)
    row = started(user)
    assert delivery.deliver(row.pk) == 2
    clock.now += timedelta(seconds=2)
    delivery.deliver(row.pk)
    assert (status(row), len(wire.requests)) == ("sent", 2)
