"""A field and an index that serve as well on each database."""

from typing import Any, cast

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement
from django.db.models import CharField, Index, Model


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


class CountingIndex(Index):
    """An index by which rows are counted that changed a moment ago.

    Each change of a row leaves an entry in the index. PostgreSQL puts entries of equal
    values together, and then a count looks at all old versions until a vacuum. Kept
    apart, those that the first count finds dead are passed over from then on.
    """

    def create_sql(
        self,
        model: type[Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Statement:
        statement: Any = super().create_sql(model, schema_editor, using, **kwargs)
        if schema_editor.connection.vendor == "postgresql":
            statement.parts["extra"] = " WITH (deduplicate_items = off)"
        return cast(Statement, statement)
