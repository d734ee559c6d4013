"""The SELECT, INSERT, UPDATE and upsert of rows, as SQL by hand.

The ORM would build each statement anew, which costs several times the CPU of running
it. Values pass through the fields of the model, so that they are as the ORM writes and
reads them. ``run`` sends several statements at once where it can, and ``first_values``
makes one SELECT of several queries of the ORM.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

from django.conf import settings
from django.db import connections
from django.db.models import DateTimeField, Model, Q, QuerySet, Subquery, Value
from django.db.models.constants import OnConflict
from django.db.models.expressions import RawSQL
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import Query

M = TypeVar("M", bound=Model)
T = TypeVar("T")
MOMENT = Value(None, output_field=DateTimeField())
# As in the ORM's names of lookups: "expires_at__gt".
OPERATORS = {"": "=", "gt": ">", "lt": "<", "lte": "<="}


class Table(Generic[M]):
    """The table of a model in one database, for one thread: keep none."""

    def __init__(self, using: str, model: type[M]) -> None:
        self.using, self.model = using, model
        self.connection: Any = connections[using]

    @property
    def name(self) -> str:
        return str(self.connection.ops.quote_name(self.model._meta.db_table))

    @property
    def columns(self) -> list[str]:
        """All columns, in the order that ``instance`` takes their values."""
        return _columns(self.model)

    def value(self, name: str, value: Any) -> Any:
        """A value of this field as the database's driver takes it."""
        return self._field(name).get_db_prep_value(value, self.connection)

    def instance(self, values: Sequence[Any]) -> M:
        """The row whose columns have these values, as the driver returned it."""
        read, fields = list(values), self.model._meta.concrete_fields
        # Whether a converter of times is needed depends on USE_TZ.
        for place in _places_to_convert(self.using, self.model, settings.USE_TZ):
            expression = fields[place].cached_col
            for convert in _converters(self.connection, expression):
                read[place] = convert(read[place], expression, self.connection)
        return self.model.from_db(self.using, _attribute_names(self.model), read)

    def read(self, pk: Any) -> M | None:
        """The row with this primary key, None where there is none."""
        key: Any = self.model._meta.pk
        sql = (
            f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {key.column} = %s"
        )
        with self.connection.cursor() as cursor:
            cursor.execute(sql, [self.value(key.name, pk)])
            values = cursor.fetchone()
        return self.instance(values) if values else None

    def insert(self, row: M) -> None:
        """Store a new row, as ``save(force_insert=True)`` does, with its signals."""
        given = {"instance": row, "raw": False, "using": self.using}
        pre_save.send(self.model, update_fields=None, **given)
        # What is None is left out: it becomes NULL.
        values = {
            str(field.column): field.get_db_prep_save(value, self.connection)
            for field in self.model._meta.concrete_fields
            if (value := field.pre_save(row, add=True)) is not None
        }
        places = ", ".join(["%s"] * len(values))
        sql = f"INSERT INTO {self.name} ({', '.join(values)}) VALUES ({places})"
        with self.connection.cursor() as cursor:
            cursor.execute(sql, list(values.values()))
        row._state.adding, row._state.db = False, self.using
        post_save.send(self.model, created=True, update_fields=None, **given)

    def update(
        self,
        where: Mapping[str, Any],
        changes: Mapping[str, Any],
        *conditions: Q | RawSQL,
    ) -> bool:
        """Change the rows for which all holds. Returns whether there was one.

        ``where`` and ``changes`` have the names of fields, those of ``where`` with a
        lookup of OPERATORS, "in" or "isnull". ``conditions`` are what ``transactions``
        yields.
        """
        found = [self._term(key, value) for key, value in where.items()]
        terms = [sql for sql, _parameters in found]
        terms += [each.sql for each in conditions if isinstance(each, RawSQL)]
        assignments = [f"{self._field(name).column} = %s" for name in changes]
        parameters = [self.value(name, value) for name, value in changes.items()]
        parameters += [each for _sql, of_term in found for each in of_term]
        sql = (
            f"UPDATE {self.name} SET {', '.join(assignments)} "
            f"WHERE {' AND '.join(terms)}"
        )
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return bool(cursor.rowcount > 0)

    def _field(self, name: str) -> Any:
        return self.model._meta.get_field(name)

    def _term(self, key: str, value: Any) -> tuple[str, list[Any]]:
        """A term of a WHERE, and its parameters."""
        name, _separator, lookup = key.partition("__")
        column = self._field(name).column
        if value is None or lookup == "isnull":
            return f"{column} IS {'NOT ' if value is False else ''}NULL", []
        values = value if lookup == "in" else [value]
        places = ", ".join(["%s"] * len(values))
        operator = "IN" if lookup == "in" else OPERATORS[lookup]
        parameters = [self.value(name, each) for each in values]
        return f"{column} {operator} ({places})", parameters

    def upsert_sql(
        self,
        columns: Sequence[str],
        rows: Sequence[str],
        *,
        changed: str,
        returning: Sequence[str],
    ) -> str:
        """An INSERT of ``rows``, each "(…)", whose key is the first of ``columns``.

        A row whose key is there only changes its column ``changed``. Where
        ``returns_rows``, the statement returns the columns ``returning`` of each row.
        """
        ops = self.connection.ops
        on_conflict = ops.on_conflict_suffix_sql(
            [self._field(name) for name in columns],
            OnConflict.UPDATE,
            [changed],
            [columns[0]],
        )
        names, shown = (
            ", ".join(map(ops.quote_name, each)) for each in (columns, returning)
        )
        values = ", ".join(rows)
        sql = f"INSERT INTO {self.name} ({names}) VALUES {values} {on_conflict}"
        return f"{sql} RETURNING {shown}" if self.returns_rows else sql

    @property
    def returns_rows(self) -> bool:
        """Whether an INSERT returns rows. That of MySQL does not."""
        return bool(self.connection.features.can_return_rows_from_bulk_insert)

    @property
    def updates_and_returns(self) -> bool:
        """Whether one UPDATE serves as well as a SELECT and an UPDATE.

        That of MariaDB and MySQL returns no row, and that of SQLite waits for its turn
        to write, even where it changes no row.
        """
        return bool(self.connection.vendor == "postgresql")


@cache
def _columns(model: type[Model]) -> list[str]:
    return [str(field.column) for field in model._meta.concrete_fields]


@cache
def _attribute_names(model: type[Model]) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields]


@cache
def _places_to_convert(using: str, model: type[Model], use_tz: bool) -> list[int]:
    """The columns whose values the driver does not return as the model holds them."""
    connection, fields = connections[using], model._meta.concrete_fields
    return [
        place
        for place, field in enumerate(fields)
        if _converters(connection, field.cached_col)
    ]


def _converters(connection: Any, expression: Any) -> list[Callable[..., Any]]:
    """What the ORM calls, one after the other, for a value of this column."""
    of_database = connection.ops.get_db_converters(expression)
    return [*of_database, *expression.get_db_converters(connection)]


class Statement(NamedTuple, Generic[T]):
    """SQL with its parameters, and what makes the answer of its rows."""

    sql: str
    parameters: Sequence[Any]
    read: Callable[[Sequence[Sequence[Any]]], T]


def run(using: str, *statements: Statement[Any]) -> list[Any]:
    """The answers of the statements, which run one after the other.

    In one round trip where the driver takes several at once.
    """
    connection, answers = connections[using], []
    with connection.cursor() as cursor:
        one_by_one = [(each,) for each in statements]
        takes_several = _takes_several(connection, cursor)
        for group in [statements] if takes_several else one_by_one:
            parameters = chain.from_iterable(each.parameters for each in group)
            cursor.execute("; ".join(each.sql for each in group), list(parameters))
            for place, each in enumerate(group):
                if place > 0:
                    cursor.nextset()
                rows = cursor.fetchall() if cursor.description else []
                answers.append(each.read(rows))
    return answers


def _takes_several(connection: Any, cursor: Any) -> bool:
    """Whether one ``execute`` takes several statements and keeps the rows of each.

    A cursor of psycopg 3 does, unless the server binds the parameters, or a wrapper of
    the host may add statements or read their rows.
    """
    binding_cursor: Any = getattr(connection.Database, "ClientCursor", ())
    is_plain = not connection.execute_wrappers
    return is_plain and isinstance(cursor.cursor, binding_cursor)


def first_values(
    using: str, queries: Mapping[str, QuerySet[Any, Any]]
) -> dict[str, Any]:
    """The value that each query finds first; None where it finds none. One SELECT.

    Each query selects one column. Without any, nothing is asked.
    """
    if not queries:
        return {}
    query: Any = Query(None)
    for name, rows in queries.items():
        query.add_annotation(Subquery(rows[:1]), name)
    [values] = query.get_compiler(using).results_iter()
    return dict(zip(queries, values, strict=True))


def moment_reader(using: str) -> Callable[[Any], datetime]:
    """Makes an aware datetime of what the database's driver returns."""
    connection = connections[using]
    converters = connection.ops.get_db_converters(MOMENT)

    def read(value: Any) -> Any:
        for convert in converters:
            value = convert(value, MOMENT, connection)
        return value

    return read
