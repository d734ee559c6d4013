"""PgBouncer in transaction mode, in front of the PostgreSQL server of the tests."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections

from support.brokers import LOOPBACK, Broker, path_of

# Debian keeps it where only root looks.
FOLDERS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])


class Pgbouncer(Broker):
    """``database`` is the entry of DATABASES to which it leads."""

    def __init__(self, database: dict[str, Any]) -> None:
        self.binary = path_of("pgbouncer", FOLDERS)
        self.database = database
        super().__init__("postgres")

    def command(self) -> list[str]:
        file = self.folder / "pgbouncer.ini"
        keys = ("HOST", "PORT", "USER", "PASSWORD")
        given = {key.lower(): self.database[key] for key in keys if self.database[key]}
        server = " ".join(f"{key}='{value}'" for key, value in given.items())
        file.write_text(
            f"[databases]\n* = {server}\n[pgbouncer]\n"
            f"listen_addr = {LOOPBACK}\nlisten_port = {self.port}\n"
            # No connection of its own for each client: sessions are shared.
            "pool_mode = transaction\ndefault_pool_size = 5\n"
            "auth_type = any\nunix_socket_dir =\n"
        )
        # It refuses to run as root.
        as_other = ["-u", "nobody"] if os.getuid() == 0 else []
        if as_other:
            shutil.chown(self.folder, "nobody")
        return [self.binary, *as_other, str(file)]

    def answers(self) -> bool:
        with socket.create_connection((LOOPBACK, self.port), timeout=5):
            return True


@contextmanager
def connected_through_pgbouncer() -> Iterator[Pgbouncer]:
    """All connections of the process are made as Django's docs say for PgBouncer."""
    database = connection.settings_dict
    server = Pgbouncer(database)
    server.start()
    connection.close()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(database, "PORT", str(server.port))
            patch.setitem(database, "HOST", LOOPBACK)
            patch.setitem(database, "DISABLE_SERVER_SIDE_CURSORS", True)
            yield server
            connections.close_all()
    finally:
        server.stop()
