"""A PostgreSQL database whose clock a test can set, without setting that of the machine."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import psycopg

_SCHEMA = """
    CREATE SCHEMA dial;
    CREATE TABLE dial.ahead (by interval NOT NULL);
    INSERT INTO dial.ahead VALUES ('0');
    CREATE FUNCTION dial.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS 'SELECT pg_catalog.clock_timestamp() + by FROM dial.ahead';
"""


class SetClock:
    """The database's clock; `url` is the store whose sessions go by it."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._execute(_SCHEMA)
        self.url = f"{database}?options={quote('-c search_path=dial,pg_catalog')}"

    def step(self, by: timedelta) -> None:
        """Set it forward, or back."""
        self._execute("UPDATE dial.ahead SET by = by + %s", by)

    def _execute(self, statement: str, *values: object) -> None:
        with psycopg.connect(self._database, autocommit=True) as connection:
            connection.execute(statement.encode(), values or None)
