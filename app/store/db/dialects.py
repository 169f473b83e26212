"""The differences of PostgreSQL and SQLite; modules for PostgreSQL, some 2 MiB, are imported only where needed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ColumnElement, FromClause, Select, Table, Text, cast, exists, func, select, type_coerce
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine


class Json(TypeDecorator[Any]):
    """JSON, on PostgreSQL as JSONB; None is NULL."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type of this database."""
        if not is_postgresql(dialect):
            return dialect.type_descriptor(JSON(none_as_null=True))
        from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415

        return dialect.type_descriptor(JSONB(none_as_null=True))


def is_postgresql(dialect: Dialect) -> bool:
    """Whether a connection with this dialect is one to PostgreSQL."""
    return dialect.name == "postgresql"


def insert_missing(dialect: Dialect, table: Table) -> Any:
    """An insert that leaves a row alone which is there already."""
    if not is_postgresql(dialect):
        return sqlite.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table).on_conflict_do_nothing()


def has_label(dialect: Dialect, table: FromClause, name: str, value: str) -> ColumnElement[bool]:
    """Whether a row's labels have this pair."""
    if is_postgresql(dialect):
        from sqlalchemy.dialects.postgresql import JSONB  # noqa: PLC0415

        return type_coerce(table.c.labels, JSONB).contains({name: value})
    # Label names may hold any character, which the path expressions of SQLite cannot spell.
    pairs = func.json_each(table.c.labels).table_valued("key", "value")
    return exists().select_from(pairs).where(func.cast(pairs.c.key, Text) == name, pairs.c.value == value)


def led_by(query: Select[Any], table: Table, index: str) -> Select[Any]:
    """A query for which SQLite uses this index of a table: it keeps no figures by which it would choose."""
    return query.with_hint(table, f"INDEXED BY {index}", "sqlite")


def planned_summaries(dialect: Dialect, table: FromClause) -> ColumnElement[Any]:
    """The summaries of a plan's steps that would change something, without the rest, which may be long."""
    if is_postgresql(dialect):
        from sqlalchemy.dialects.postgresql import JSONPATH  # noqa: PLC0415

        path = cast("$.steps[*] ? (!exists(@.changes) || @.changes == true).summary", JSONPATH)
        return type_coerce(func.jsonb_path_query_array(table.c.plan, path), Json)
    steps = func.json_each(table.c.plan, "$.steps").table_valued("value")
    changes = func.coalesce(func.json_extract(steps.c.value, "$.changes"), 1) == 1
    told = select(func.json_group_array(func.json_extract(steps.c.value, "$.summary"))).select_from(steps)
    return type_coerce(told.where(changes).correlate(table).scalar_subquery(), Json)
