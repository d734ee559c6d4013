"""A start in a caller's transaction counts what was committed while it waited."""

import threading
from collections import Counter

import pytest
from django.db import OperationalError, connection, transaction

from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.transactions import is_definite_abort
from support.steps import start

pytestmark = pytest.mark.django_db(transaction=True)
rows = PhoneVerification.objects
KEY = "3f1c9a4e-key-of-a-form"
# Each number is in its own block.
NUMBERS = [f"+3706{n:03}4567" for n in range(100, 120)]
REPEATABLE_READ = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL "
    "REPEATABLE READ",
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
}


@pytest.fixture(params=["host's level", "REPEATABLE READ"])
def results_of(request, at_once):
    """Count the results of 20 starts, each in a transaction that read before."""
    statement = REPEATABLE_READ.get(connection.vendor)
    if request.param == "REPEATABLE READ" and statement is None:
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")
    barrier = threading.Barrier(20)

    def read_then_start(arguments):
        if request.param == "REPEATABLE READ":
            connection.ensure_connection()
            connection.cursor().execute(statement)
        try:
            with transaction.atomic():
                if connection.vendor != "sqlite":
                    rows.count()
                    barrier.wait()
                return start(**arguments).status
        except VerificationError as error:
            return error.code
        except OperationalError as error:
            return "aborted" if is_definite_abort(error) else repr(error)

    return lambda arguments: Counter(at_once(read_then_start, arguments))


@pytest.fixture
def users(django_user_model):
    return django_user_model.objects.bulk_create(
        django_user_model(username=f"user{n}") for n in range(20)
    )


def test_20_starts_for_one_number_store_one_row(results_of, wire, users):
    results = results_of([{"user": user} for user in users])
    assert results["queued"] == rows.count() == 1
    assert set(results) <= {"queued", "cooldown", "aborted"}


def test_20_starts_by_one_user_keep_the_limit(results_of, wire, user, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("3/h",)}
    results = results_of([{"user": user, "number": number} for number in NUMBERS])
    assert 1 <= results["queued"] == rows.count() <= 3
    assert set(results) <= {"queued", "limit_reached", "aborted"}


def test_20_starts_with_one_key_store_one_row(results_of, wire, user):
    start_with_key = {"user": user, "idempotency_key": KEY}
    results_of([start_with_key] * 20)
    assert rows.count() == 1


def test_20_unrelated_starts_all_pass(results_of, wire, users):
    pairs = zip(users, NUMBERS, strict=True)
    results = results_of([{"user": user, "number": number} for user, number in pairs])
    assert results == {"queued": 20}
