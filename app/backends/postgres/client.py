"""PostgreSQL servers, for the actions and checks on postgres targets.

One connection per use, so that a rotated secret file is honoured and nothing is held between runs. Leaves this module
with errors of app.domain.errors only, which never carry the connection URL: libpq repeats parts of it when it cannot
read it, so only text that the server sent is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from sqlalchemy.engine import make_url

from app.backends.postgres.backend import APPLICATION_NAME, PostgresConnection
from app.backends.postgres.errors import ask_why, refused, translated
from app.domain.errors import ConfigError, PermanentError, TransientError
from app.domain.plans import Target
from app.domain.reasons import Reason

MAX_NAME_BYTES = 63  # NAMEDATALEN - 1

# Nothing that lives as long as a session is relied upon or left behind: behind a pooler such as PgBouncer the next
# transaction may be in another session, and this one somebody else's.
_SETTINGS = {"DateStyle": "ISO, MDY", "TimeZone": "UTC", "IntervalStyle": "postgres", "search_path": "pg_catalog"}
_SET: LiteralString = (
    "SELECT pg_catalog.set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS setting(name, value)"
)


class Connection:
    """An open connection; each statement is a transaction of its own."""

    def __init__(self, connection: psycopg.AsyncConnection[DictRow], timeout: float) -> None:
        self._connection = connection
        self._settings = {"statement_timeout": f"{timeout:g}s", **_SETTINGS}

    async def fetch(self, statement: LiteralString, values: Mapping[str, Any] | None = None) -> list[DictRow]:
        """Run a statement, and return its rows."""
        async with self._connection.transaction():
            await self._connection.execute(_SET, [list(self._settings), list(self._settings.values())])
            return await (await self._connection.execute(statement, values)).fetchall()


def own_databases(instances: Mapping[str, PostgresConnection], store_url: str) -> tuple[str, ...]:
    """The targets (instance/database) that are the database of this URL of SQLAlchemy's."""
    store = make_url(store_url)
    own = [name for name, one in instances.items() if _server_of(one) == (store.host, store.port)]
    return tuple(f"{name}/{store.database}" for name in own)


def _server_of(connection: PostgresConnection) -> tuple[str | None, int | None]:
    """Host and port as the URL has them; two empty values where it cannot be read now, which is told at its use."""
    try:
        options = conninfo_to_dict(connection.url.read())
    except (ConfigError, psycopg.ProgrammingError):
        return "", 0
    host, port = options.get("host"), options.get("port")
    return (None if host is None else str(host)), (None if port is None else int(port))


class PostgresClient:
    """One server, by the connection URL of the configuration."""

    def __init__(self, connection: PostgresConnection, timeout: timedelta) -> None:
        self._url = connection.url
        self._timeout = timeout.total_seconds()

    def resolve(self, instance: str, database: str | None) -> Target:
        """Name the database to act on, by default the one of the URL; asks nothing of the network."""
        name = self._options().get("dbname") if database is None else database
        if name is None:
            msg = f"postgres target {instance!r} names no database, and neither does its connection URL"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID)
        _validate(name)
        return Target(backend="postgres", key=f"postgres:{instance}/{name}", name=name)

    @asynccontextmanager
    async def connect(self, database: str) -> AsyncIterator[Connection]:
        """Open a connection to `database`; raises our errors only, also for errors of the body."""
        connection = await self._open(database)
        try:
            # statement_timeout is the server's; this one also ends waiting for a server that hangs.
            async with asyncio.timeout(2 * self._timeout):
                yield Connection(connection, self._timeout)
        except psycopg.Error as error:
            raise translated(error) from None
        except TimeoutError:
            msg = f"PostgreSQL gave no answer within {2 * self._timeout:g}s"
            raise TransientError(msg) from None
        finally:
            await connection.close()

    async def _open(self, database: str) -> psycopg.AsyncConnection[DictRow]:
        _validate(database)
        options = self._options() | {
            "dbname": database,
            "application_name": APPLICATION_NAME,
            "client_encoding": "utf8",
            "connect_timeout": max(1, round(self._timeout)),
        }
        connect = psycopg.AsyncConnection.connect
        try:
            return await connect(**options, autocommit=True, prepare_threshold=None, row_factory=dict_row)
        except psycopg.errors.ConnectionTimeout as error:
            raise refused(error, None) from None
        except psycopg.Error as error:
            raise refused(error, await asyncio.to_thread(ask_why, options, self._timeout)) from None

    def _options(self) -> dict[str, Any]:
        try:
            return dict(conninfo_to_dict(self._url.read()))
        except psycopg.Error:
            msg = "the PostgreSQL connection URL cannot be read; write postgresql://user:password@host:port/database"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID) from None


def _validate(database: str) -> None:
    size = len(database.encode())
    if not size or size > MAX_NAME_BYTES or "\0" in database:
        msg = f"{database[:MAX_NAME_BYTES]!r} is no database name: 1 to {MAX_NAME_BYTES} bytes without NUL"
        raise PermanentError(msg, reason=Reason.TARGET_NOT_FOUND)
