"""Transactions whose waits for locks are bounded, and retries after an abort."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from django.db import (
    Error,
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)
from django.db.models import BooleanField, Case, Q, Value, When
from django.db.models.expressions import RawSQL

T = TypeVar("T")
# An always true condition, which sets the bounds of locks on PostgreSQL.
Bounds = Q | RawSQL

# How long a statement waits for a lock, and how long a transaction that holds locks may
# pause between two statements. A frozen process holds them no longer.
LOCK_TIMEOUT = timedelta(seconds=5)
# A shorter timeout of the host stays; 0 is none.
BOUND_SETTING = """
    set_config(
        '{name}',
        CASE WHEN current_setting('{name}')::interval BETWEEN '1 ms' AND '{most} ms'
        THEN current_setting('{name}') ELSE '{most} ms' END,
        true
    ) <> ''
"""
BOUNDED_SETTINGS = ("lock_timeout", "idle_in_transaction_session_timeout")

RAISE_SYNCHRONOUS_COMMIT = """
    CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
    THEN set_config('synchronous_commit', 'on', true) = 'on' ELSE true END
"""

MAX_TRIES = 6
# How long a paid answer is written down over a lost connection.
WRITE_RETRY_BUDGET = timedelta(seconds=10)
# PostgreSQL: lock_not_available. MariaDB and MySQL: lock wait timeout.
LOCK_TIMEOUT_CODES = {"55P03", 1205, "SQLITE_BUSY"}
ABORT_CODES = LOCK_TIMEOUT_CODES | {
    # PostgreSQL: serialization_failure, deadlock_detected,
    # idle_in_transaction_session_timeout.
    *("40001", "40P01", "25P03"),
    # MariaDB and MySQL: record changed since it was read, deadlock.
    *(1020, 1213),
    *("SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED", "SQLITE_LOCKED_SHAREDCACHE"),
}
# InternalError: after a failover the server may be read-only.
LOST_CONNECTION_ERRORS = (OperationalError, InterfaceError, InternalError)


class LostBeforeCommit(OperationalError):
    """The connection was lost before COMMIT was sent, so nothing is stored."""


def in_transaction(using: str) -> bool:
    """Return whether a caller's transaction is open on this database alias.

    A connection without autocommit is always inside one, which Django's
    ``atomic(durable=True)`` does not notice. The block that TestCase wraps around a
    test is not counted.
    """
    connection = transaction.get_connection(using)
    if blocks := connection.atomic_blocks:
        return not blocks[-1]._from_testcase
    if connection.connection is None:
        # get_autocommit would connect, and the server may be away.
        return not connection.settings_dict["AUTOCOMMIT"]
    return not connection.get_autocommit()


@contextmanager
def durable_transaction(using: str) -> Iterator[Bounds]:
    """A transaction that is committed when the block ends, with bounded locks.

    Yields the condition for its first locking statement. Raises RuntimeError inside a
    caller's transaction, which could roll it back.
    """
    if in_transaction(using):
        raise RuntimeError("A durable transaction cannot run inside another one.")
    with joining_transaction(using) as bounds:
        yield bounds or Q()


@contextmanager
def durable_statement(using: str) -> Iterator[Bounds]:
    """As ``durable_transaction``, for one statement, which commits by itself."""
    if transaction.get_autocommit(using):
        with bounded_locks(using) as bounds:
            yield bounds or Q()
    else:
        # Inside TestCase: a statement that fails must not break the test's transaction.
        with durable_transaction(using) as bounds:
            yield bounds


@contextmanager
def joining_transaction(using: str) -> Iterator[Bounds | None]:
    """A transaction of our own with bounded locks, or a part of the caller's.

    Yields the same as ``bounded_locks``. Raises LostBeforeCommit.
    """
    connection, uncommitted = connections[using], None
    is_own = connection.get_autocommit()
    bounds_idle = is_own and _is_mariadb(connection)
    idle = _idle_timeout(using) if bounds_idle else nullcontext()
    try:
        with idle, bounded_locks(using) as bounds, transaction.atomic(using=using):
            uncommitted = connection.connection
            yield bounds
            uncommitted = None
    except LOST_CONNECTION_ERRORS as error:
        # Django drops a connection whose rollback fails.
        is_kept = uncommitted in (None, connection.connection)
        if is_own and not is_kept:
            raise LostBeforeCommit(type(error).__name__) from error
        raise


@contextmanager
def bounded_locks(using: str) -> Iterator[Bounds | None]:
    """Bound each wait for a lock in the block: a statement or transaction of our own.

    Yields a condition for its first locking statement, which sets the bounds on
    PostgreSQL: a statement of its own would cost a round trip. Inside a transaction
    that is not our own it yields None and the caller's timeouts hold, but for MariaDB,
    where a statement can be bounded alone.
    """
    connection = connections[using]
    vendor, is_own = connection.vendor, connection.get_autocommit()
    bounds = Q() if is_own else None
    if _is_mariadb(connection):
        with statement_variables(using, _bounded("innodb_lock_wait_timeout", 0)):
            yield bounds
    elif is_own and vendor == "sqlite":
        with _busy_timeout(using):
            yield bounds
    elif is_own and vendor == "postgresql":
        yield _bounding_condition(LOCK_TIMEOUT // timedelta(milliseconds=1))
    else:
        yield bounds


@cache
def _bounding_condition(most: int) -> RawSQL:
    """The condition that bounds what PostgreSQL waits for, to so many milliseconds."""
    settings = [BOUND_SETTING.format(name=name, most=most) for name in BOUNDED_SETTINGS]
    return _condition(" AND ".join(settings))


@cache
def _condition(sql: str) -> RawSQL:
    return RawSQL(sql, (), output_field=BooleanField())


def bounding(bounds: Bounds | None, moment: datetime) -> Any:
    """``moment`` as a value to insert or to set, which sets the bounds as well."""
    return Case(When(bounds, then=Value(moment))) if bounds else moment


def bounding_sql(bounds: Bounds | None) -> str:
    """The placeholder of a moment in SQL by hand, which sets the bounds as well."""
    return f"CASE WHEN {bounds.sql} THEN %s END" if isinstance(bounds, RawSQL) else "%s"


@contextmanager
def statement_variables(using: str, assignments: str) -> Iterator[None]:
    """Set variables of MariaDB for each statement of the block. Can be nested."""

    def execute_with(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        statement = sql.removeprefix("SET STATEMENT ")
        end = " FOR" if statement == sql else ","
        return execute(f"SET STATEMENT {assignments}{end} {statement}", *arguments)

    with connections[using].execute_wrapper(execute_with):
        yield


def _is_mariadb(connection: Any) -> bool:
    return connection.vendor == "mysql" and bool(connection.mysql_is_mariadb)


def _bounded(name: str, least: int) -> str:
    """The assignment that bounds a variable of MariaDB, which is in seconds.

    A shorter value of the host stays, but for one below ``least``.
    """
    most = math.ceil(LOCK_TIMEOUT.total_seconds())
    is_shorter = f"@@{name} BETWEEN {least} AND {most}"
    return f"{name} = IF({is_shorter}, @@{name}, {most})"


@contextmanager
def _idle_timeout(using: str) -> Iterator[None]:
    """MariaDB ends a transaction of the block that pauses for LOCK_TIMEOUT."""
    connection, name = connections[using], "idle_transaction_timeout"
    set_bound = f"SET @idenfy_phone_before = @@{name}, SESSION {_bounded(name, 1)}"
    with connection.cursor() as cursor:
        cursor.execute(set_bound)
    try:
        yield
    finally:
        # Django closes a connection whose rollback fails.
        if connection.connection is not None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(f"SET SESSION {name} = @idenfy_phone_before")
            except Error:
                connection.close()


@contextmanager
def _busy_timeout(using: str) -> Iterator[None]:
    """SQLite gives up after LOCK_TIMEOUT, or sooner where the host wants that."""
    most = LOCK_TIMEOUT // timedelta(milliseconds=1)
    connection = connections[using]
    connection.ensure_connection()
    raw = connection.connection
    [before] = raw.execute("PRAGMA busy_timeout").fetchone()
    raw.execute(f"PRAGMA busy_timeout = {min(before, most)}")
    try:
        yield
    finally:
        if connection.connection is raw:
            raw.execute(f"PRAGMA busy_timeout = {before}")


def give_back_connection(using: str) -> None:
    """Return the connection to the host's pool, where there is one.

    Called before a slow request, outside any transaction: others may need it meanwhile.
    """
    connection = connections[using]
    has_pool = connection.settings_dict["OPTIONS"].get("pool")
    # Where none is open, get_autocommit would take one from the pool.
    is_open = connection.connection is not None
    # Without autocommit, the connection holds what the caller has not yet committed.
    if has_pool and is_open and connection.get_autocommit():
        connection.close()


def durable_commit(using: str) -> Q | RawSQL:
    """A condition that is always true, and makes the commit of its UPDATE durable.

    On PostgreSQL it raises ``synchronous_commit`` from "off" and "local" to "on" until
    the transaction ends, and never lowers a stricter setting. It stands in the UPDATE,
    since a statement of its own would cost a round trip. Other servers cannot change
    that for one transaction.
    """
    if connections[using].vendor != "postgresql":
        return Q()
    return _condition(RAISE_SYNCHRONOUS_COMMIT)


def retry_on_abort(work: Callable[[], T], using: str) -> T:
    """Run ``work``, which commits by itself, again after a definite abort.

    A lost connection may hide a commit. Not after a lock timeout, which has waited long
    enough, nor in a caller's transaction, which was aborted as a whole.
    """
    for attempt in range(MAX_TRIES):
        try:
            return work()
        except (OperationalError, InternalError) as error:
            can_help = is_definite_abort(error) and not is_lock_timeout(error)
            if attempt == MAX_TRIES - 1 or in_transaction(using) or not can_help:
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


def is_definite_abort(error: Exception) -> bool:
    """Return whether the database surely undid the transaction, as in a deadlock."""
    return isinstance(error, LostBeforeCommit) or code_of(error) in ABORT_CODES


def is_lock_timeout(error: Exception) -> bool:
    """Return whether a statement waited too long for a lock; a definite abort too."""
    return code_of(error) in LOCK_TIMEOUT_CODES


def code_of(error: BaseException) -> object:
    """What identifies a database error: SQLSTATE, number, or SQLite's name.

    Where it has none, the text of the error, or "".
    """
    first = error.args[0] if error.args else ""
    if isinstance(first, int):
        # MariaDB and MySQL: some clients add a sqlstate, which says less.
        return first
    # psycopg calls it sqlstate, psycopg2 calls it pgcode.
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        if code := getattr(error.__cause__ or error, name, None):
            return code
    return first
