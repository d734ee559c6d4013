"""System checks of the databases that a host configured."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections, router

from .models import primary_alias


@register
def check_databases(**kwargs: Any) -> Iterator[CheckMessage]:
    if primary_alias() != router.db_for_write(get_user_model()):
        yield Error(
            "Users and phone verifications live in different databases.",
            hint="A row has a foreign key to its user: route both to one database.",
            id="django_idenfy_phone.E019",
        )


@register(Tags.database)
def check_durability(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> Iterator[CheckMessage]:
    """Runs with ``migrate`` and with ``check --database``."""
    using = primary_alias()
    if using in (databases or ()) and not _is_durable(using):
        yield Warning(
            "A crash of the database server may lose commits that it confirmed.",
            hint="A send could then be paid twice. Set fsync = on (PostgreSQL), "
            "innodb_flush_log_at_trx_commit = 1 (MariaDB, MySQL) or PRAGMA "
            "synchronous = FULL (SQLite).",
            id="django_idenfy_phone.W011",
        )


def _is_durable(using: str) -> bool:
    queries = {
        "postgresql": ("SHOW fsync", ("on",)),
        "mysql": ("SELECT @@innodb_flush_log_at_trx_commit", (1,)),
        # FULL and EXTRA.
        "sqlite": ("PRAGMA synchronous", (2, 3)),
    }
    connection = connections[using]
    if connection.vendor not in queries:
        return True
    query, safe_values = queries[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0] in safe_values


@register
def check_sqlite(**kwargs: Any) -> Iterator[CheckMessage]:
    alias = primary_alias()
    if alias not in connections or connections[alias].vendor != "sqlite":
        return
    database = connections.settings[alias]
    mode = str(database["OPTIONS"].get("transaction_mode")).upper()
    if mode != "IMMEDIATE" or not _uses_wal(database):
        yield Warning(
            "SQLite runs without WAL or without IMMEDIATE transactions.",
            hint='Requests would fail with "database is locked": set '
            '"transaction_mode": "IMMEDIATE" and "init_command": "PRAGMA '
            'journal_mode=WAL" in OPTIONS.',
            id="django_idenfy_phone.W009",
        )


def _uses_wal(database: dict[str, Any]) -> bool:
    """Whether its connections set WAL, or the header of its file says so."""
    command = str(database["OPTIONS"].get("init_command"))
    if re.search("journal_mode *= *[\"']?wal", command, re.IGNORECASE):
        return True
    try:
        with Path(str(database["NAME"])).open("rb") as file:
            # See sqlite.org/fileformat.
            return file.read(20)[18:] == b"\x02\x02"
    except (OSError, ValueError):
        return False
