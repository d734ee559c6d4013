"""The SELECT, the UPDATE and the upsert of rows, as SQL by hand.

The ORM would build each statement anew, which costs several times the CPU of running
it. Values pass through the fields of the model, so that they are as the ORM writes and
reads them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from django.db import connections
from django.db.models import DateTimeField, Model, Q, Value
from django.db.models.constants import OnConflict
from django.db.models.expressions import RawSQL

M = TypeVar("M", bound=Model)
# As in the ORM's names of lookups: "expires_at__gt".
OPERATORS = {"": "=", "gt": ">", "lt": "<", "lte": "<="}


def table_of(using: str, model: type[Model]) -> str:
    return str(connections[using].ops.quote_name(model._meta.db_table))


def columns_of(model: type[Model]) -> str:
    """All columns, in the order that ``instance_of`` takes them."""
    return ", ".join(str(field.column) for field in model._meta.concrete_fields)


def value_of(using: str, model: type[Model], name: str, value: Any) -> Any:
    """A value of this field as the database's driver takes it."""
    field: Any = model._meta.get_field(name)
    return field.get_db_prep_value(value, connections[using])


def instance_of(using: str, model: type[M], values: Sequence[Any]) -> M:
    """The row whose columns have these values, as the database's driver returned it."""
    connection, fields = connections[using], model._meta.concrete_fields
    read = list(values)
    for place, field in enumerate(fields):
        expression = field.cached_col
        for convert in (
            *connection.ops.get_db_converters(expression),
            *field.get_db_converters(connection),
        ):
            read[place] = convert(read[place], expression, connection)
    return model.from_db(using, [field.attname for field in fields], read)


def moment_reader(using: str) -> Callable[[Any], datetime]:
    """Makes an aware datetime of what the database's driver returns."""
    connection = connections[using]
    expression = Value(None, output_field=DateTimeField())
    converters = connection.ops.get_db_converters(expression)

    def read(value: Any) -> Any:
        for convert in converters:
            value = convert(value, expression, connection)
        return value

    return read


def read(using: str, model: type[M], pk: Any) -> M | None:
    """The row with this primary key, None where there is none."""
    key: Any = model._meta.pk
    sql = f"SELECT {columns_of(model)} FROM {table_of(using, model)} WHERE id = %s"
    with connections[using].cursor() as cursor:
        cursor.execute(sql, [value_of(using, model, key.name, pk)])
        values = cursor.fetchone()
    return instance_of(using, model, values) if values else None


def update(
    using: str,
    model: type[Model],
    where: Mapping[str, Any],
    changes: Mapping[str, Any],
    *conditions: Q | RawSQL,
) -> bool:
    """Change the rows for which all holds. Returns whether there was one.

    ``where`` and ``changes`` have the names of fields, those of ``where`` with a lookup
    of OPERATORS, "in" or "isnull". ``conditions`` are what ``transactions`` yields.
    """
    found = [_term(using, model, key, value) for key, value in where.items()]
    terms = [sql for sql, _parameters in found]
    terms += [each.sql for each in conditions if isinstance(each, RawSQL)]
    parameters = [each for _sql, parameters in found for each in parameters]
    assignments = [f"{_column(model, name)} = %s" for name in changes]
    values = [value_of(using, model, name, changes[name]) for name in changes]
    sql = (
        f"UPDATE {table_of(using, model)} SET {', '.join(assignments)} "
        f"WHERE {' AND '.join(terms)}"
    )
    with connections[using].cursor() as cursor:
        cursor.execute(sql, [*values, *parameters])
        return bool(cursor.rowcount > 0)


def _column(model: type[Model], name: str) -> str:
    field: Any = model._meta.get_field(name)
    return str(field.column)


def _term(
    using: str, model: type[Model], key: str, value: Any
) -> tuple[str, list[Any]]:
    name, _separator, lookup = key.partition("__")
    column = _column(model, name)
    if value is None or lookup == "isnull":
        return f"{column} IS {'NOT ' if value is False else ''}NULL", []
    values = value if lookup == "in" else [value]
    places = ", ".join(["%s"] * len(values))
    operator = "IN" if lookup == "in" else OPERATORS[lookup]
    parameters = [value_of(using, model, name, each) for each in values]
    return f"{column} {operator} ({places})", parameters


@cache
def upsert_sql(
    using: str,
    model: type[Model],
    columns: tuple[str, ...],
    rows: tuple[str, ...],
    *,
    changed: str,
    returning: tuple[str, ...],
) -> str:
    """An INSERT of ``rows``, each "(…)", whose key is the first of ``columns``.

    A row whose key is there only changes its column ``changed``. Where the database can
    do that, the statement returns the columns ``returning`` of each row.
    """
    connection, meta = connections[using], model._meta
    quote = connection.ops.quote_name
    on_conflict = connection.ops.on_conflict_suffix_sql(
        [meta.get_field(name) for name in columns],
        OnConflict.UPDATE,
        [changed],
        [columns[0]],
    )
    sql = (
        f"INSERT INTO {quote(meta.db_table)} ({', '.join(map(quote, columns))}) "
        f"VALUES {', '.join(rows)} {on_conflict}"
    )
    if not connection.features.can_return_rows_from_bulk_insert:
        return sql
    return f"{sql} RETURNING {', '.join(map(quote, returning))}"
