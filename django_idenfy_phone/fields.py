"""Model fields that behave the same on each database."""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField


class ExactCharField(CharField):  # type: ignore[type-arg]
    """A CharField in which each character counts, also on MariaDB and MySQL.

    Their default collations ignore case, accents and trailing spaces.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        db_type = super().db_type(connection)
        if db_type and connection.vendor == "postgresql":
            # Spelled out: Django adds an index for LIKE to a unique "varchar".
            return db_type.replace("varchar", "character varying")
        return db_type

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters: dict[str, Any] = dict(super().db_parameters(connection))
        if connection.vendor == "mysql":
            is_mariadb = getattr(connection, "mysql_is_mariadb", False)
            parameters["collation"] = (
                "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
            )
        return parameters
