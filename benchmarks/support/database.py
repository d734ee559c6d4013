"""Databases of the benchmark's own, and how millions of rows come into them."""

from typing import Any

import dj_database_url
from django.db.utils import ConnectionHandler

VERIFICATIONS = "django_idenfy_phone_phoneverification"
# Requests come from the first users, so that no filled row counts for them.
CALLERS = 20_000
USERS = 120_000
NOW = "interval '0'"
FULL_SPAN = "interval '89 days'"

# Of row g: a settled one, unless a caller of ``fill`` replaces some of it.
COLUMNS = {
    "id": "gen_random_uuid()",
    "user_id": f"{CALLERS} + 1 + g % {USERS - CALLERS}",
    "is_anonymous": "false",
    # British, since the requests name Lithuanian ones.
    "phone_number": "'+4477' || lpad((g * 7919 % 100000000)::text, 8, '0')",
    "region": "'GB'",
    "number_block": "'+4477' || left(lpad((g * 7919 % 100000000)::text, 8, '0'), 4)",
    "purpose": "''",
    "network": "'12.' || g / 65536 % 256 || '.' || g / 256 % 256 || '.' || g % 256",
    "status": "CASE WHEN g % 2 = 0 THEN 'verified' ELSE 'expired' END",
    "is_verified": "g % 2 = 0",
    "failure": "''",
    "provider_code": "''",
    "request_id": "replace(gen_random_uuid()::text, '-', '')",
    "created_at": "made",
    "send_by": "made + interval '3 minutes'",
    "next_send_at": "made - interval '10 minutes'",
    "slot_reserved": "false",
    "claimed_at": "made",
    "lease_until": "made + interval '45 seconds'",
    "send_attempts": "1",
    "sent_at": "made",
    "expires_at": "made + interval '10 minutes'",
    "checks": "1",
    "checks_wrong": "g % 2",
    "checks_refunded": "0",
    "verified_at": "CASE WHEN g % 2 = 0 THEN made + interval '1 minute' END",
    "announced_at": "CASE WHEN g % 2 = 0 THEN made + interval '1 minute' END",
    "announce_at": "CASE WHEN g % 2 = 0 THEN made + interval '3 minutes' END",
    "announce_attempts": "CASE WHEN g % 2 = 0 THEN 1 ELSE 0 END",
    "announce_failure": "''",
}
OPEN = {"is_verified": "false", "checks": "0", "checks_wrong": "0"} | dict.fromkeys(
    ("verified_at", "announced_at", "announce_at"), "NULL::timestamptz"
)
OPEN["announce_attempts"] = "0"
QUEUED = OPEN | {"status": "'queued'", "send_attempts": "0", "request_id": "NULL"}
QUEUED |= dict.fromkeys(
    ("claimed_at", "lease_until", "sent_at", "expires_at"), "NULL::timestamptz"
)
SENT = OPEN | {"status": "'sent'"}


class Database:
    def __init__(self, url: str) -> None:
        self.url = url
        settings = dict(dj_database_url.parse(url))
        self.connection = ConnectionHandler({"default": settings})["default"]

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def add_users(self) -> None:
        self.execute(f"""
            INSERT INTO auth_user (id, username, password, is_superuser, first_name,
                last_name, email, is_staff, is_active, date_joined)
            SELECT g, 'user' || g, '', false, '', '', 'user' || g || '@example.com',
                false, true, now()
            FROM generate_series(1, {USERS}) AS g""")
        self.execute("VACUUM ANALYZE auth_user")

    def empty(self) -> None:
        """Delete all but the users."""
        names = f"""{VERIFICATIONS}, django_idenfy_phone_startlock,
            django_idenfy_phone_providergate, django_idenfy_phone_tally,
            django_idenfy_phone_heartbeat, floors_floorrow"""
        self.execute(f"TRUNCATE {names} RESTART IDENTITY")

    def fill(
        self,
        rows: int,
        columns: dict[str, str] | None = None,
        since: str = FULL_SPAN,
    ) -> list[str]:
        """Insert rows whose ``made`` is spread evenly from ``since`` ago to now.

        Returns the ids of up to CALLERS of them, oldest first.
        """
        self.insert(rows, COLUMNS | (columns or {}), since, NOW)
        self.execute(f"VACUUM ANALYZE {VERIFICATIONS}")
        ids = f"SELECT id FROM {VERIFICATIONS} ORDER BY created_at LIMIT {CALLERS}"
        return [str(pk) for (pk,) in self.execute(ids)]

    def age(self) -> None:
        """Change each row as a send and a check do, and let no vacuum pass."""
        self.execute(f"ALTER TABLE {VERIFICATIONS} SET (autovacuum_enabled = off)")
        for changes in (
            "status = 'sending', is_verified = false",
            "status = 'sent'",
            "checks = checks + 1",
            "status = 'verified', is_verified = true",
        ):
            self.execute(f"UPDATE {VERIFICATIONS} SET {changes}")
        self.execute(f"ANALYZE {VERIFICATIONS}")

    def fill_much(self, rows: int, since: str = FULL_SPAN, until: str = NOW) -> None:
        """Insert settled rows, and make the indexes afterwards: many times faster."""
        self.execute("SET maintenance_work_mem = '512MB'")
        # No foreign key is looked up.
        self.execute("SET session_replication_role = replica")
        indexes = self.execute(f"""
            SELECT indexname, indexdef FROM pg_indexes
            WHERE tablename = '{VERIFICATIONS}' AND indexname NOT IN
                (SELECT conname FROM pg_constraint)""")
        for name, _definition in indexes:
            self.execute(f'DROP INDEX "{name}"')
        self.insert(rows, COLUMNS, since, until)
        for _name, definition in indexes:
            self.execute(definition)
        self.execute(f"VACUUM ANALYZE {VERIFICATIONS}")
        self.execute("CHECKPOINT")

    def insert(
        self, rows: int, columns: dict[str, str], since: str, until: str
    ) -> None:
        self.execute(f"""
            INSERT INTO {VERIFICATIONS} ({", ".join(columns)})
            SELECT {", ".join(columns.values())} FROM (
                SELECT g, now() - {since} + ({since} - {until}) * g / {rows} AS made
                FROM generate_series(1::bigint, {rows}) AS g) AS numbered""")

    def fill_floor(self, rows: int) -> list[int]:
        self.execute(f"""
            INSERT INTO floors_floorrow (phone_number, status, created_at)
            SELECT '+37060000000', 'queued', now() FROM generate_series(1, {rows})""")
        self.execute("VACUUM ANALYZE floors_floorrow")
        return [pk for (pk,) in self.execute("SELECT id FROM floors_floorrow")]
