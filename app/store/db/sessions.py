"""Sets in every session of PostgreSQL the options that the store relies on, over all defaults of server and role.

Used by `Database` for its pools, and by the loops that hold a connection of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, LiteralString

from sqlalchemy.engine import URL

if TYPE_CHECKING:
    from psycopg import AsyncConnection

# A replica that freezes in the middle of a decision must not keep the others from theirs; long work keeps itself alive.
IDLE_IN_TRANSACTION = "5s"
# A session that works and does not come to an end is waited for longer than that, as a migration may, but not for ever.
LOCK_SECONDS = 600.0
_RELIED_ON = {
    # Limits are counted under locks: a transaction has to see all commits from before its lock.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # A session that the server ends, or a statement that it cuts off, looks like an outage.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "exit_on_error": "off",
    # How values are written and read.
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    # The results of a search.
    "row_security": "on",
    "gin_fuzzy_search_limit": "0",
}
APPLICATION_NAME = "remediator"  # also of the connections to targets
_NAMED = re.compile(r"(?:-c\s*|--)(\w+)\s*=")
_UNLIMITED = "SET statement_timeout = 0"  # first, and by itself: a limit of milliseconds would end the next statement
_SET: LiteralString = """
SELECT pg_catalog.set_config(name, value, false)
FROM unnest(%(names)s::text[], %(values)s::text[]) AS setting(name, value)
WHERE pg_catalog.current_setting(name, true) IS NOT NULL
"""  # an older server does not know all of them
_SYNCED: LiteralString = """
SELECT pg_catalog.set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                             WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)
"""
_UNSYNCED: LiteralString = "SET synchronous_commit = off"


def settings(url: URL) -> dict[str, str]:
    """Name every setting that a session of this store has, with its value."""
    options = url.query.get("options", "")
    named = set(_NAMED.findall(options if isinstance(options, str) else " ".join(options)))
    named |= set(url.query)
    # The URL of the store may name others: `?options=-c search_path=remediator`. By its name an action that ends idle
    # sessions knows ours, also where a pooler hides that the target is our own store.
    chosen = {
        "application_name": APPLICATION_NAME,
        "search_path": '"$user", public',
        "lock_timeout": f"{LOCK_SECONDS:g}s",
    }
    ends = {"idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION}
    return _RELIED_ON | ends | {name: value for name, value in chosen.items() if name not in named}


def prepare(connection: Any, url: URL, *, synced: bool) -> None:
    """Set up a connection of SQLAlchemy's pool; a commit waits for the disk where it is `synced`."""
    cursor = connection.cursor()
    for statement, values in _statements(url, synced=synced):
        cursor.execute(statement, values)
    cursor.close()
    connection.commit()


def arguments(url: URL) -> dict[str, Any]:
    """Return the driver's arguments for a connection without transactions, the same as for the pools.

    The text of a URL does not serve: SQLAlchemy writes a space in it, as in `options=-c …`, as a plus, and libpq keeps
    that.
    """
    _, given = url.get_dialect()().create_connect_args(url)
    return {**given, "autocommit": True, "prepare_threshold": None}


async def connect(url: URL) -> AsyncConnection[tuple[Any, ...]]:
    """Open a connection of its own, without transactions; raises psycopg.Error or OSError."""
    import psycopg  # noqa: PLC0415 - only where the store is PostgreSQL

    given = arguments(url) | {"application_name": APPLICATION_NAME}
    connection = await psycopg.AsyncConnection.connect(**given)
    try:
        for statement, values in _statements(url, synced=True):
            await connection.execute(statement, values)
    except BaseException:
        await connection.close()
        raise
    return connection


def _statements(url: URL, *, synced: bool) -> Iterable[tuple[LiteralString, dict[str, list[str]] | None]]:
    wanted = settings(url)
    yield _UNLIMITED, None
    yield _SET, {"names": list(wanted), "values": list(wanted.values())}
    yield (_SYNCED if synced else _UNSYNCED), None
