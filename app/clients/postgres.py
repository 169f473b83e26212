"""PostgreSQL servers, for the actions and checks on postgres targets.

One connection per use, so that a rotated secret file is honoured and nothing is held between runs. Leaves this module
with errors of app.domain.errors only, which never carry the connection URL: libpq repeats parts of it when it cannot
read it, so only text that the server sent is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from app.clients.connections import APPLICATION_NAME, PostgresConnection
from app.domain.errors import ActionError, ConfigError, PermanentError, TransientError
from app.domain.plans import Target
from app.domain.reasons import Reason

MAX_NAME_BYTES = 63  # NAMEDATALEN - 1

Connection = psycopg.AsyncConnection[DictRow]

# While connecting libpq gives no SQLSTATE, only the server's text. What is not known here counts as transient.
_FORBIDDEN = ("authentication failed", "no pg_hba.conf entry", "permission denied", "not permitted to log in")
_PHRASES = (
    ("refused", "connection refused"),
    ("resolve host", "its host name cannot be resolved"),
    ("timeout", "timed out"),
    ("no password supplied", "the server asks for a password and the URL has none"),
)


def server_of(connection: PostgresConnection) -> tuple[str | None, int | None]:
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
        """Open an autocommit connection to `database`; whatever the body does, too, raises our errors only."""
        connection = await self._open(database)
        try:
            # statement_timeout is the server's; this one also ends waiting for a server that hangs.
            async with asyncio.timeout(2 * self._timeout):
                yield connection
        except psycopg.Error as error:
            raise _translated(error) from None
        except TimeoutError:
            msg = f"PostgreSQL gave no answer within {2 * self._timeout:g}s"
            raise TransientError(msg) from None
        finally:
            await connection.close()

    async def _open(self, database: str) -> Connection:
        _validate(database)
        options = self._options() | {
            "dbname": database,
            "application_name": APPLICATION_NAME,
            "client_encoding": "utf8",
            "connect_timeout": max(1, round(self._timeout)),
        }
        try:
            connection = await psycopg.AsyncConnection.connect(**options, autocommit=True, row_factory=dict_row)
        except psycopg.Error as error:
            raise _refused(error) from None
        try:
            # Not a start-up option: poolers such as PgBouncer refuse those.
            await connection.execute("SELECT set_config('statement_timeout', %s, false)", [f"{self._timeout:g}s"])
        except psycopg.Error as error:
            await connection.close()
            raise _translated(error) from None
        return connection

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


def _refused(error: psycopg.Error) -> ActionError:
    """What a failed connection attempt means; nothing was done yet."""
    text = str(error)
    told = text.rpartition("FATAL:")[2].strip() if "FATAL:" in text else ""
    missing = told.endswith("does not exist")
    if missing and told.startswith("database"):
        return PermanentError(f"PostgreSQL: {told}", reason=Reason.TARGET_NOT_FOUND)
    if missing or any(phrase in told for phrase in _FORBIDDEN) or "no password supplied" in text:
        return PermanentError(f"PostgreSQL: {told or _phrase(text)}", reason=Reason.FORBIDDEN)
    return TransientError(f"cannot connect to PostgreSQL: {told or _phrase(text)}")


def _phrase(text: str) -> str:
    return next((phrase for sign, phrase in _PHRASES if sign in text), "no connection could be made")


def _translated(error: psycopg.Error) -> ActionError:
    """What a failed statement means, by its SQLSTATE."""
    told = f"PostgreSQL: {error.diag.message_primary or 'the connection was lost'}"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return PermanentError(told, reason=Reason.FORBIDDEN)
    if isinstance(error, psycopg.OperationalError):
        return TransientError(told)
    return PermanentError(told)
