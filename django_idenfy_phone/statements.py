"""The SELECT and the UPDATE of one row, as SQL by hand.

The ORM would build each statement anew, which costs several times the CPU of running
it. Values pass through the fields of the model, so that they are as the ORM writes and
reads them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.db import connections
from django.db.models import DateTimeField, Model, Q, Value
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
    terms, parameters = _terms(using, model, where)
    terms += [each.sql for each in conditions if isinstance(each, RawSQL)]
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


def _terms(
    using: str, model: type[Model], where: Mapping[str, Any]
) -> tuple[list[str], list[Any]]:
    terms: list[str] = []
    parameters: list[Any] = []
    for key, value in where.items():
        name, _separator, lookup = key.partition("__")
        column = _column(model, name)
        if value is None or lookup == "isnull":
            terms.append(f"{column} IS {'NOT ' if value is False else ''}NULL")
            continue
        values = value if lookup == "in" else [value]
        parameters += [value_of(using, model, name, each) for each in values]
        places = ", ".join(["%s"] * len(values))
        operator = "IN" if lookup == "in" else OPERATORS[lookup]
        terms.append(f"{column} {operator} ({places})")
    return terms, parameters
