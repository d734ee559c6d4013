"""Faults of the test database: lost connections, and what comes between statements."""

import threading
import time
from contextlib import contextmanager

from django.db import connection

from support.brokers import free_port

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

IS_WAITED_FOR = {
    "postgresql": """
        SELECT EXISTS (
            SELECT FROM pg_locks WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))
        )
    """,
    "mysql": """
        SELECT EXISTS (
            SELECT 1 FROM information_schema.innodb_lock_waits
            JOIN information_schema.innodb_trx ON trx_id = blocking_trx_id
            WHERE trx_mysql_thread_id = CONNECTION_ID()
        )
    """,
}


def kill_all_connections():
    """Do what a restart of the database does to its clients."""
    with connection.cursor() as cursor:
        cursor.execute(KILL_OTHERS[connection.vendor])
        if connection.vendor == "mysql":
            for (statement,) in cursor.fetchall():
                cursor.execute(statement)
    connection.close()


@contextmanager
def server_away(seconds):
    """Lose all connections and refuse new ones, for so long or until the block ends."""

    def come_back():
        address["PORT"] = port

    address = connection.settings_dict
    port = address["PORT"]
    kill_all_connections()
    address["PORT"] = free_port()
    timer = threading.Timer(seconds, come_back)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        come_back()


def lose_connection():
    """The next statement of this thread fails, on SQLite too."""
    if connection.vendor == "sqlite":
        connection.connection.close()
    else:
        thread = threading.Thread(target=kill_all_connections)
        thread.start()
        thread.join()


def is_waited_for():
    """Whether another transaction waits for that of this thread."""
    # MariaDB looks again only if it was not asked for 0.1 seconds.
    time.sleep(0.2)
    with connection.cursor() as cursor:
        cursor.execute(IS_WAITED_FOR[connection.vendor])
        return cursor.fetchone()[0]


@contextmanager
def after_statement(act):
    """Yield a function of a word: the next statement with it is followed by ``act``."""

    def wrapper(execute, sql, *arguments):
        result = execute(sql, *arguments)
        if words and words[0] in sql:
            words.clear()
            act()
        return result

    words = []
    with connection.execute_wrapper(wrapper):
        yield words.append
        words.clear()
