"""Retries after an abort or a lost connection, and a test for an open transaction."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from django.db import (
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)
from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL

T = TypeVar("T")

RAISE_SYNCHRONOUS_COMMIT = """
    CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
    THEN set_config('synchronous_commit', 'on', true) = 'on' ELSE true END
"""

MAX_TRIES = 6
# How long a paid answer is written down over a lost connection.
WRITE_RETRY_BUDGET = timedelta(seconds=10)
# PostgreSQL: serialization_failure, deadlock_detected, lock_not_available.
ABORTED_STATES = {"40001", "40P01", "55P03"}
# MariaDB and MySQL: record changed since it was read, lock wait timeout, deadlock.
ABORTED_NUMBERS = {1020, 1205, 1213}
# InternalError: after a failover the server may be read-only.
LOST_CONNECTION_ERRORS = (OperationalError, InterfaceError, InternalError)


def in_transaction(using: str) -> bool:
    """Return whether a caller's transaction is open on this database alias.

    A connection without autocommit is always inside one, which Django's
    ``atomic(durable=True)`` does not notice. The block that TestCase wraps around a
    test is not counted.
    """
    connection = transaction.get_connection(using)
    if blocks := connection.atomic_blocks:
        return not blocks[-1]._from_testcase
    return not connection.get_autocommit()


@contextmanager
def durable_transaction(using: str) -> Iterator[None]:
    """A transaction that is committed when the block ends.

    Raises RuntimeError inside a caller's transaction, which could roll it back.
    """
    if in_transaction(using):
        raise RuntimeError("A durable transaction cannot run inside another one.")
    with transaction.atomic(using=using):
        yield


def durable_commit(using: str) -> Q | RawSQL:
    """A condition that is always true, and makes the commit of its UPDATE durable.

    On PostgreSQL it raises ``synchronous_commit`` from "off" and "local" to "on" until
    the transaction ends, and never lowers a stricter setting. It stands in the UPDATE,
    since a statement of its own would cost a round trip. Other servers cannot change
    that for one transaction.
    """
    if connections[using].vendor != "postgresql":
        return Q()
    return RawSQL(RAISE_SYNCHRONOUS_COMMIT, (), output_field=BooleanField())


def retry_on_abort(work: Callable[[], T], using: str) -> T:
    """Run ``work``, which commits by itself, again when the database aborted it.

    Only after a definite abort: a lost connection may hide a commit. Inside a caller's
    transaction it is not run again, since all of that transaction was aborted.
    """
    for attempt in range(MAX_TRIES):
        try:
            return work()
        except OperationalError as error:
            is_last = attempt == MAX_TRIES - 1
            if is_last or in_transaction(using) or not is_definite_abort(error):
                raise
            time.sleep(random.uniform(0, 0.02 * 2**attempt))
    raise AssertionError("unreachable")


def retry_on_lost_connection(write: Callable[[], T], using: str) -> T:
    """Write down what a paid call did, also when the connection is lost meanwhile.

    For about WRITE_RETRY_BUDGET, then it raises one of LOST_CONNECTION_ERRORS. It must
    be safe to run ``write`` twice.
    """
    give_up_at = time.monotonic() + WRITE_RETRY_BUDGET.total_seconds()
    while True:
        try:
            return write()
        except LOST_CONNECTION_ERRORS:
            if time.monotonic() > give_up_at or in_transaction(using):
                raise
            connections[using].close()
            time.sleep(random.uniform(0.1, 0.5))


def is_definite_abort(error: OperationalError) -> bool:
    """Return whether the database surely undid the transaction, as in a deadlock."""
    cause = error.__cause__
    # psycopg calls it sqlstate, psycopg2 calls it pgcode.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return (
        state in ABORTED_STATES
        or (bool(error.args) and error.args[0] in ABORTED_NUMBERS)
        or str(error).startswith("database is locked")
        or str(error).startswith("database table is locked")
    )
