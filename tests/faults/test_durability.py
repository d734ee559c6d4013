"""What was paid or spent is committed durably before iDenfy is asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import Tags, run_checks
from django.db import connection

from django_idenfy_phone import delivery, services
from django_idenfy_phone.models import PhoneVerification
from support import brokers, postgres
from support import wire as w

pytestmark = pytest.mark.django_db(transaction=True)
NOTE_LEVEL = f"""
    CREATE TEMP TABLE levels (level text);
    CREATE FUNCTION pg_temp.note_level() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO levels VALUES (current_setting('synchronous_commit'));
            RETURN NULL;
        END
    $$;
    CREATE TRIGGER note_level AFTER UPDATE ON {PhoneVerification._meta.db_table}
        FOR EACH ROW EXECUTE FUNCTION pg_temp.note_level();
"""


@pytest.fixture
def committed_with():
    """Returns the synchronous_commit of each change of a verification so far."""
    if connection.vendor != "postgresql":
        pytest.skip("set DATABASE_URL to a PostgreSQL server to run this")

    def levels():
        with connection.cursor() as cursor:
            cursor.execute("SELECT level FROM levels ORDER BY ctid")
            return [level for (level,) in cursor.fetchall()]

    with connection.cursor() as cursor:
        cursor.execute(NOTE_LEVEL)
        yield levels
        cursor.execute("DROP FUNCTION pg_temp.note_level CASCADE; DROP TABLE levels")


LEVELS = [
    ("off", "on"),
    ("local", "on"),
    ("remote_write", "remote_write"),
    ("on", "on"),
    ("remote_apply", "remote_apply"),
]


def set_level(level):
    connection.cursor().execute(f"SET synchronous_commit = {level}")


def level_now():
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        return cursor.fetchone()[0]


@pytest.mark.parametrize(("level", "expected"), LEVELS)
def test_claim_is_committed_durably(make, wire, committed_with, level, expected):
    set_level(level)
    assert delivery.claim(make("queued")).status == "sending"
    assert (committed_with(), level_now()) == ([expected], level)


@pytest.mark.parametrize(("level", "expected"), LEVELS)
def test_check_is_committed_durably(make, wire, committed_with, level, expected):
    wire.will(w.answer(200, {"is_verified": False}))
    row = make("sent")
    set_level(level)
    services.confirm_verification(row.pk, "1234", user=row.user)
    assert (committed_with(), level_now()) == ([expected, level], level)


UNSAFE = {
    "sqlite": ("PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"),
    "mysql": (
        "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
    ),
    "postgresql": ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM RESET fsync"),
}


def change(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_reload_conf(), pg_sleep(0.5)")


def own_ids():
    messages = run_checks(tags=[Tags.database], databases=["default"])
    return [each.id for each in messages if "W011" in each.id]


def test_check_warns_of_a_database_that_may_lose_commits():
    unsafe, safe = UNSAFE[connection.vendor]
    try:
        change(unsafe)
        assert own_ids() == ["django_idenfy_phone.W011"]
    finally:
        change(safe)
    assert own_ids() == []
    connection.close()


# Requests to send and to check, for a row and for a check that are each tried twice.
FAILURES = {
    "Alone": (1, 1),
    "Replicated": (1, 1),
    # README says what this one costs.
    "FallenBehind": (2, 2),
}


@pytest.mark.extra_server
@pytest.mark.parametrize("servers", FAILURES)
def test_failure_during_a_request_repeats_no_send_and_refunds_no_check(
    tmp_path, servers
):
    pytest.importorskip("psycopg", reason="pip install psycopg to run this")
    if not postgres.BINARIES:
        pytest.skip("install postgresql to run this")
    run = subprocess.run(
        [sys.executable, "-P", Path(postgres.__file__).with_name("crash.py"), servers],
        cwd=tmp_path,
        env=brokers.environment(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    requests = json.loads(run.stdout)
    sends, checks = requests["/fraud/send-sms"], requests["/fraud/verify-sms"]
    assert (sends, checks) == FAILURES[servers]
