"""Whether a transaction is open, and trying again what a database aborted or lost."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import (
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)

T = TypeVar("T")

TRIES = 6
PATIENCE = 10.0
# PostgreSQL: serialization_failure, deadlock_detected, lock_not_available.
ABORTED_STATES = {"40001", "40P01", "55P03"}
# MariaDB and MySQL: changed since it was read, lock wait timeout, deadlock.
ABORTED_NUMBERS = {1020, 1205, 1213}
# The last where a failover leaves a server that only reads.
LOST = (OperationalError, InterfaceError, InternalError)


def is_open(using: str) -> bool:
    """Whether a caller's transaction is open.

    As with ``atomic(durable=True)``, the block that TestCase wraps around a test is
    none.
    """
    blocks = transaction.get_connection(using).atomic_blocks
    return bool(blocks) and not blocks[-1]._from_testcase


def retried(work: Callable[[], T], using: str) -> T:
    """Run ``work``, which commits by itself; again when the database aborted it.

    Only after a definite abort: a lost connection may hide a commit. Inside a caller's
    transaction there is nothing to try again with: the whole of it was aborted.
    """
    for attempt in range(TRIES):
        try:
            return work()
        except OperationalError as error:
            is_last = attempt == TRIES - 1
            if is_last or is_open(using) or not is_definite_abort(error):
                raise
            time.sleep(random.uniform(0, 0.02 * 2**attempt))
    raise AssertionError("unreachable")


def persisted(write: Callable[[], T], using: str) -> T:
    """Write down what a paid call did, over a lost database connection too.

    For about PATIENCE seconds, then it raises one of LOST. ``write`` must do no harm
    when it is run twice.
    """
    give_up_at = time.monotonic() + PATIENCE
    while True:
        try:
            return write()
        except LOST:
            if time.monotonic() > give_up_at or is_open(using):
                raise
            connections[using].close()
            time.sleep(random.uniform(0.1, 0.5))


def is_definite_abort(error: OperationalError) -> bool:
    cause = error.__cause__
    # psycopg's name for it, and psycopg2's.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return (
        state in ABORTED_STATES
        or (bool(error.args) and error.args[0] in ABORTED_NUMBERS)
        or str(error).startswith("database is locked")
        or str(error).startswith("database table is locked")
    )
