"""Database faults and wrong clocks never cost a second SMS or an uncounted check."""

import threading
import time
from collections import Counter
from contextlib import ExitStack, nullcontext, suppress
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

from django_idenfy_phone import delivery, maintenance, services, tallies, transactions
from django_idenfy_phone.exceptions import (
    CheckUnknown,
    CooldownActive,
    ProviderUnavailable,
    VerificationError,
    VerificationExpired,
)
from django_idenfy_phone.models import PhoneVerification, ProviderGate, StartLock
from django_idenfy_phone.signals import phone_verified
from django_idenfy_phone.testing import age
from support import wire as w
from support.constants import NUMBER
from support.databases import (
    KILL_OTHERS,
    after_statement,
    kill_all_connections,
    server_away,
)
from support.steps import START_URL, dispatched_by_sweep, outcome, post_json, start

pytestmark = pytest.mark.django_db(transaction=True)
SENT = w.answer(200, {"request_id": "r" * 32})
LIMITED = w.refusal(429, "TOO_MANY_REQUESTS")
REFUSED = w.answer(401)
TRUE = w.answer(200, {"is_verified": True})
FALSE = w.answer(200, {"is_verified": False})
BODY = {"phone_number": NUMBER}
TABLE = "django_idenfy_phone_"


@pytest.fixture
def database_server():
    """The test needs a server that can lose its connections, which SQLite is not."""
    if connection.vendor not in KILL_OTHERS:
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")


def without_connection(answer):
    """Answer after all database connections were killed."""

    def respond(sock):
        kill_all_connections()
        answer(sock)

    return respond


@pytest.fixture
def abort_next():
    """Abort the next statements that contain a word, as a deadlock does."""
    left = {"times": 0, "word": ""}

    def wrapper(execute, sql, params, many, context):
        if left["word"] in sql and left["times"] > 0:
            left["times"] -= 1
            raise OperationalError(1213, "Deadlock found")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield lambda times, word: left.update(times=times, word=word)
        left["times"] = 0


@pytest.fixture
def short_patience(monkeypatch):
    """Lost results are written for half a second only, instead of ten."""
    monkeypatch.setattr(transactions, "WRITE_RETRY_BUDGET", timedelta(seconds=0.5))


@pytest.fixture
def kill_after(at_once):
    """Kill all connections after the next statement that contains a word."""

    def kill():
        at_once(lambda _: kill_all_connections(), [None])

    with after_statement(kill) as kill_after:
        yield kill_after


@pytest.mark.usefixtures("database_server")
@pytest.mark.parametrize("word", ["startlock", "providergate"])
def test_start_survives_a_connection_lost_before_its_commit(
    api, wire, kill_after, word
):
    kill_after(word)
    assert post_json(api, START_URL, BODY).status_code == 202
    assert PhoneVerification.objects.get().status == "queued"


@pytest.mark.usefixtures("database_server")
def test_connection_lost_at_the_commit_is_no_definite_abort(kill_after):
    tries = []

    def work():
        tries.append(kill_after("startlock"))
        with transactions.durable_transaction("default"):
            StartLock.objects.update(cleared_at=None)

    with pytest.raises(transactions.LOST_CONNECTION_ERRORS) as caught:
        transactions.retry_on_abort(work, "default")
    connection.close()
    assert (len(tries), transactions.is_definite_abort(caught.value)) == (1, False)


@pytest.mark.usefixtures("database_server")
def test_row_is_sent_after_its_claim_failed(make, wire, at_once):
    wire.will(SENT)
    row = make("queued")
    at_once(lambda _: kill_all_connections(), [None])
    # PostgreSQL's claim is tried again by itself.
    with suppress(OperationalError, InterfaceError):
        delivery.deliver(row.pk)
    connection.close()
    for pk in dispatched_by_sweep():
        delivery.deliver(pk)
    assert (outcome(row), row.send_attempts, len(wire.requests)) == ("sent", 1, 1)


def test_claim_that_was_aborted_at_its_end_is_made_again(make, wire, abort_next):
    wire.will(SENT)
    row = make("queued")
    abort_next(1, f"UPDATE {connection.ops.quote_name(ProviderGate._meta.db_table)}")
    delivery.deliver(row.pk)
    assert (outcome(row), row.send_attempts, len(wire.requests)) == ("sent", 1, 1)


@pytest.mark.usefixtures("database_server")
def test_send_is_recorded_on_new_connection(make, wire):
    wire.will(without_connection(SENT))
    row = make("queued")
    delivery.deliver(row.pk)
    assert (outcome(row), len(wire.requests)) == ("sent", 1)


@pytest.mark.usefixtures("database_server")
def test_refusal_is_recorded_on_new_connection(make, wire):
    wire.will(without_connection(REFUSED))
    row = make("queued")
    delivery.deliver(row.pk)
    assert (outcome(row), row.status) == ("account", "failed")


@pytest.mark.usefixtures("database_server")
def test_right_code_is_recorded_on_new_connection(make, wire):
    wire.will(without_connection(TRUE))
    row = make("sent")
    confirmed = services.confirm_verification(row.pk, "1234", user=row.user)
    assert confirmed.is_verified


def test_right_code_is_announced_though_the_answer_to_its_commit_was_lost(make, wire):
    def lose_answer():
        raise OperationalError("server closed the connection unexpectedly")

    def receiver(verification, **kwargs):
        signalled.append(verification.pk)

    signalled, row = [], make("sent")
    wire.will(TRUE)
    phone_verified.connect(receiver)
    try:
        with after_statement(lose_answer) as lose_answer_after:
            lose_answer_after("is_verified = ")
            services.confirm_verification(row.pk, "1234", user=row.user)
    finally:
        phone_verified.disconnect(receiver)
    assert (outcome(row), signalled) == ("verified", [row.pk])
    assert row.announced_at


@pytest.mark.usefixtures("database_server")
@pytest.mark.parametrize(
    ("answer", "error", "checks_left"),
    [
        (FALSE, None, 2),
        (LIMITED, ProviderUnavailable, 3),
        (REFUSED, ProviderUnavailable, 3),
        (w.hang_up, CheckUnknown, 2),
    ],
)
def test_check_is_recorded_on_new_connection(make, wire, answer, error, checks_left):
    wire.will(without_connection(answer))
    row = make("sent")
    with pytest.raises(error) if error else nullcontext():
        services.confirm_verification(row.pk, "1234", user=row.user)
    assert (outcome(row), row.checks_left) == ("sent", checks_left)
    assert row.checking_until is None


def test_send_is_recorded_after_failover(make, wire):
    """The new server only reads at first."""
    if connection.vendor != "postgresql":
        pytest.skip("set DATABASE_URL to a PostgreSQL server to run this")
    row = make("queued")
    recovery = threading.Timer(1.5, lambda: (set_read_only(False), connection.close()))

    def fail_over(sock):
        set_read_only(True)
        recovery.start()
        without_connection(SENT)(sock)

    wire.will(fail_over)
    began = time.monotonic()
    try:
        delivery.deliver(row.pk)
    finally:
        recovery.join()
    assert time.monotonic() - began > 1.5
    assert (outcome(row), len(wire.requests)) == ("sent", 1)


@pytest.fixture
def take_server_away(database_server):
    """A function: the server goes away for so many seconds, and then answers."""

    def take_away(seconds, answer):
        def respond(sock):
            stack.enter_context(server_away(seconds))
            answer(sock)

        return respond

    with ExitStack() as stack:
        yield take_away


def test_send_is_recorded_when_the_server_is_back(make, wire, take_server_away):
    wire.will(take_server_away(3, SENT))
    row = make("queued")
    delivery.deliver(row.pk)
    assert (outcome(row), len(wire.requests)) == ("sent", 1)


def test_proof_is_recorded_when_the_server_is_back(make, wire, take_server_away):
    wire.will(take_server_away(3, TRUE))
    row = make("sent")
    services.confirm_verification(row.pk, "1234", user=row.user)
    assert (outcome(row), len(wire.requests)) == ("verified", 1)


@pytest.mark.parametrize("answer", [TRUE, FALSE])
def test_check_waits_for_the_server_as_long_as_it_is_patient(
    make, wire, take_server_away, monkeypatch, answer
):
    monkeypatch.setattr(transactions, "WRITE_RETRY_BUDGET", timedelta(seconds=2))
    wire.will(take_server_away(60, answer))
    row, began = make("sent"), time.monotonic()
    with pytest.raises(CheckUnknown):
        services.confirm_verification(row.pk, "1234", user=row.user)
    assert 2 < time.monotonic() - began < 20


def test_bad_number_is_refused_while_the_server_is_away(api, database_server):
    with server_away(60):
        response = post_json(api, START_URL, {"phone_number": "+99912345"})
    assert response.status_code == 400


def set_read_only(is_on):
    """Set the default of all connections that are opened from now on."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(
            f"ALTER DATABASE {connection.settings_dict['NAME']} "
            f"SET default_transaction_read_only = {'on' if is_on else 'off'}"
        )


@pytest.mark.usefixtures("short_patience")
def test_send_is_unknown_if_database_stays_away(make, wire, abort_next):
    row = make("queued")

    def respond(sock):
        abort_next(1000, "UPDATE")
        SENT(sock)

    wire.will(respond)
    with pytest.raises(OperationalError):
        delivery.deliver(row.pk)
    assert outcome(row) == "sending"
    abort_next(0, "")
    age(row, timedelta(seconds=45))
    PhoneVerification.objects.settle()
    delivery.deliver(row.pk)
    assert (outcome(row), row.status) == ("unknown", "failed")
    assert len(wire.requests) == 1


@pytest.mark.usefixtures("short_patience")
@pytest.mark.parametrize("answer", [TRUE, FALSE])
def test_check_verifies_nothing_if_database_stays_away(make, wire, abort_next, answer):
    row = make("sent")

    def respond(sock):
        abort_next(1000, "UPDATE")
        answer(sock)

    wire.will(respond)
    began = time.monotonic()
    with pytest.raises(CheckUnknown):
        services.confirm_verification(row.pk, "1234", user=row.user)
    assert time.monotonic() - began < 5
    assert (outcome(row), row.checks, row.is_verified) == ("sent", 1, False)


@pytest.mark.parametrize("word", ["startlock", "phoneverification"])
def test_aborted_erasure_is_tried_again(user, wire, abort_next, word):
    start(user)
    abort_next(2, f"DELETE FROM {connection.ops.quote_name(TABLE + word)}")
    erased = maintenance.erase(phone_number=NUMBER, now=True)
    assert (erased.deleted.rows, erased.deleted.locks) == (1, 1)


def test_aborted_purge_of_tallies_is_tried_again(abort_next, clock):
    tallies.note_refusal("cooldown", "LT", "")
    clock.move(timedelta(days=91))
    abort_next(2, f"DELETE FROM {connection.ops.quote_name(TABLE + 'tally')}")
    assert maintenance.purge().tallies == 1


@pytest.mark.parametrize("times", [1, 3, 5])
def test_aborted_start_is_retried(api, wire, abort_next, times):
    abort_next(times, "startlock")
    response = post_json(api, START_URL, BODY)
    assert response.status_code == 202
    assert PhoneVerification.objects.count() == 1


def test_start_that_is_always_aborted_answers_503(api, wire, abort_next):
    abort_next(1000, "startlock")
    response = post_json(api, START_URL, BODY)
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert response.json()["code"] == "provider_unavailable"
    assert not PhoneVerification.objects.exists()


def test_aborted_check_is_counted_once(make, api, wire, abort_next):
    wire.will(FALSE)
    row = make("sent")
    abort_next(2, "UPDATE")
    response = post_json(api, f"/phone/{row.pk}/confirm/", {"code": "1234"})
    assert (response.status_code, response.json()["checks_left"]) == (200, 2)
    assert len(wire.requests) == 1


def test_check_that_is_always_aborted_answers_503(make, api, wire, abort_next):
    row = make("sent")
    abort_next(1000, "UPDATE")
    response = post_json(api, f"/phone/{row.pk}/confirm/", {"code": "1234"})
    assert response.status_code == 503
    assert response.json()["code"] == "provider_unavailable"
    assert (outcome(row), row.checks, wire.requests) == ("sent", 0, [])


def test_aborted_refund_is_recorded_once(make, user, wire, abort_next):
    row = make("sent")

    def respond(sock):
        abort_next(2, "UPDATE")
        LIMITED(sock)

    wire.will(respond)
    with pytest.raises(ProviderUnavailable):
        services.confirm_verification(row.pk, "1234", user=user)
    assert (outcome(row), row.checks, row.checks_refunded) == ("sent", 1, 1)


def test_aborted_claim_is_recorded_once(make, wire, abort_next):
    wire.will(SENT)
    row = make("queued")
    abort_next(3, "UPDATE")
    delivery.deliver(row.pk)
    assert (outcome(row), row.send_attempts, len(wire.requests)) == ("sent", 1, 1)


@pytest.fixture
def attempts_of_conflict(at_once, database_server):
    """Run two transactions in two steps, and count how often they are attempted.

    Both have taken their first step before either takes its second.
    """
    now = timezone.now()
    for key in "ab":
        StartLock.objects.create(key=key, locked_at=now)

    def run_both(first_step, second_step, level="READ COMMITTED"):
        barrier = threading.Barrier(2)
        attempts = Counter()

        def attempt(keys):
            attempts[keys] += 1
            with transaction.atomic():
                first_step(keys[0])
                if attempts[keys] == 1:
                    barrier.wait()
                second_step(keys[1])

        def run(keys):
            set_isolation(level)
            transactions.retry_on_abort(lambda: attempt(keys), "default")

        at_once(run, ["ab", "ba"])
        return attempts.total()

    return run_both


def update_lock(key):
    StartLock.objects.filter(key=key).update(locked_at=timezone.now())


def test_deadlock_is_retried(attempts_of_conflict):
    assert attempts_of_conflict(update_lock, update_lock) == 3


ISOLATION_STATEMENTS = {
    "postgresql": ["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {}"],
    # In newer MariaDB innodb_snapshot_isolation is on by default.
    "mysql": [
        "SET SESSION innodb_snapshot_isolation = ON",
        "SET SESSION TRANSACTION ISOLATION LEVEL {}",
    ],
}


def set_isolation(level):
    """Set it for the next transactions on the connection of this thread."""
    with connection.cursor() as cursor:
        for statement in ISOLATION_STATEMENTS[connection.vendor]:
            cursor.execute(statement.format(level))


def test_serialization_failure_is_retried(attempts_of_conflict):
    def read(key):
        StartLock.objects.get(key=key)

    def update_same_lock(key):
        update_lock("a")

    assert attempts_of_conflict(read, update_same_lock, "REPEATABLE READ") == 3


@pytest.mark.usefixtures("database_server")
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_20_starts_queue_one_sms_under_strict_isolation(user, wire, at_once, level):
    def attempt(_):
        set_isolation(level)
        try:
            return start(user).status
        except CooldownActive:
            return "cooldown"
        except OperationalError as error:
            return "aborted" if transactions.is_definite_abort(error) else error

    results = Counter(at_once(attempt, range(20)))
    assert results["queued"] == 1
    assert results["cooldown"] + results["aborted"] == 19
    assert PhoneVerification.objects.count() == 1


@pytest.mark.usefixtures("database_server")
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_at_most_3_of_20_checks_pass_under_strict_isolation(make, wire, at_once, level):
    row = make("sent")

    def attempt(_):
        set_isolation(level)
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
    ("state", "is_abort"),
    [
        ("40001", True),
        ("40P01", True),
        ("55P03", True),
        ("25P03", True),
        ("57P01", False),
    ],
)
def test_abort_is_recognised_by_sqlstate(name, state, is_abort):
    """psycopg calls it ``sqlstate``, psycopg2 ``pgcode``."""
    error = OperationalError("...")
    error.__cause__ = Exception()
    setattr(error.__cause__, name, state)
    assert transactions.is_definite_abort(error) is is_abort


def test_worker_10_minutes_behind_sends_at_once(user, wire):
    wire.will(SENT)
    row = start(user)
    age(row, -timedelta(minutes=10))
    delivery.deliver(row.pk)
    assert (outcome(row), len(wire.requests)) == ("sent", 1)


def test_worker_10_minutes_ahead_sends_nothing(user, wire):
    row = start(user)
    age(row, timedelta(minutes=10))
    delivery.deliver(row.pk)
    assert (outcome(row), row.status) == ("too_late", "failed")
    assert wire.requests == []


@pytest.mark.parametrize("minutes", [-10, 10])
def test_wrong_clock_during_send_causes_no_second_send(user, wire, minutes):
    row = start(user)

    def respond(sock):
        age(row, timedelta(minutes=minutes))
        PhoneVerification.objects.settle()
        connections.close_all()
        SENT(sock)

    wire.will(respond)
    for _ in range(3):
        delivery.deliver(row.pk)
    assert len(wire.requests) == 1
    # With the clock ahead, the lease had expired. The late request_id still counts.
    assert outcome(row) == "sent"


def test_code_expires_early_if_clock_is_ahead(make, user, wire, clock):
    row = make("sent")
    clock.move(timedelta(minutes=10))
    with pytest.raises(VerificationExpired):
        services.confirm_verification(row.pk, "1234", user=user)
    clock.move(timedelta(minutes=-10))
    assert (outcome(row), wire.requests) == ("expired", [])


def test_idenfy_still_checks_late_code_if_clock_is_behind(make, user, wire, clock):
    wire.will(FALSE)
    row = make("sent")
    age(row, timedelta(minutes=15))
    clock.move(timedelta(minutes=-10))
    confirmed = services.confirm_verification(row.pk, "1234", user=user)
    assert (confirmed.status, confirmed.is_verified) == ("sent", False)


@pytest.mark.parametrize("minutes", [-10, 10])
def test_wrong_clock_does_not_change_retry(user, wire, clock, minutes):
    clock.move(timedelta(minutes=minutes))
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="2"), SENT)
    row = start(user)
    assert delivery.deliver(row.pk) == timedelta(seconds=2)
    clock.move(timedelta(seconds=2))
    delivery.deliver(row.pk)
    assert (outcome(row), len(wire.requests)) == ("sent", 2)
