"""A start that loses a conflict with another transaction is made again."""

import threading
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from django_idenfy_phone import services, transactions
from django_idenfy_phone.models import PhoneVerification, StartLock
from support.brokers import wait_until
from support.constants import NUMBER
from support.databases import is_waited_for
from support.steps import code_and_wait, post_start

pytestmark = pytest.mark.django_db(transaction=True)
DEADLOCK = {"postgresql": "40P01", "mysql": 1213}


@pytest.fixture
def errors():
    """The codes of the database errors of this thread so far."""

    def wrapper(execute, *arguments):
        try:
            return execute(*arguments)
        except OperationalError as error:
            codes.append(transactions.code_of(error))
            raise

    codes = []
    with connection.execute_wrapper(wrapper):
        yield codes
    connection.close()


@pytest.fixture
def keys(user):
    """Two of the locks of a start, in the order in which it takes them."""
    if connection.vendor not in DEADLOCK:
        pytest.skip("set DATABASE_URL to a PostgreSQL or MariaDB server to run this")
    services.unblock(phone_number=NUMBER, user=user)
    return sorted(StartLock.objects.values_list("key", flat=True))


@contextmanager
def another_transaction(first, *others):
    """It locks one key, and the others once it is waited for. Then it commits."""
    locks, now = StartLock.objects, timezone.now()

    def lock(key):
        locks.filter(key=key).update(locked_at=now)

    def run():
        with transaction.atomic():
            lock(first)
            # MariaDB aborts the transaction that wrote less.
            locks.bulk_create(StartLock(key=f"{n}", locked_at=now) for n in range(50))
            has_first.set()
            wait_until(is_waited_for, seconds=5)
            for key in others:
                lock(key)
        connection.close()

    has_first, thread = threading.Event(), threading.Thread(target=run)
    thread.start()
    has_first.wait()
    try:
        yield
    finally:
        thread.join()


def test_start_that_loses_a_deadlock_is_made_again(api, wire, keys, errors):
    with another_transaction(*reversed(keys)):
        assert post_start(api).status_code == 202
    assert errors == [DEADLOCK[connection.vendor]]
    assert PhoneVerification.objects.get().status == "queued"
    assert code_and_wait(post_start(api))[0] == "cooldown"


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_start_that_cannot_be_serialised_is_made_again(api, wire, keys, errors, level):
    if connection.vendor != "postgresql":
        pytest.skip("set DATABASE_URL to a PostgreSQL server to run this")
    with connection.cursor() as cursor:
        characteristics = f"TRANSACTION ISOLATION LEVEL {level}"
        cursor.execute(f"SET SESSION CHARACTERISTICS AS {characteristics}")
    with another_transaction(keys[0]):
        assert post_start(api).status_code == 202
    assert errors == ["40001"]
    assert PhoneVerification.objects.get().status == "queued"
    assert code_and_wait(post_start(api))[0] == "cooldown"
