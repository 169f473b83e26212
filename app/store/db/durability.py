"""The durability of the store, and whether it can be relied upon at all: for the start, metrics and readiness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.engine import URL

from app.domain.errors import ConfigError, StoreUnavailableError
from app.store.db import sessions
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database

_ROUNDS = 3  # of questions: others may use the pooler at the same time
_PID = "SELECT pg_backend_pid()"
_KEPT = text("""
    SELECT current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on' AS crash,
           current_setting('synchronous_standby_names') <> '' AS failover
""")
_POOLED = (
    "the store is reached through a pooler that gives each transaction another session, such as PgBouncer with "
    "pool_mode = transaction; time-outs, isolation, LISTEN and the wait for the disk would be those of others. "
    "Name the server itself in the store's URL, or a pool with pool_mode = session"
)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kept:
    """The events through which the server keeps its commits."""

    crash: bool  # of its machine
    failover: bool  # to a standby

    def __str__(self) -> str:
        return f"keeps commits through a crash: {_word(self.crash)}, through a failover: {_word(self.failover)}"


async def look(tx: AsyncConnection) -> Kept:
    """Ask the server of this connection which commits it keeps; SQLite has a disk, and no other machine."""
    if tx.dialect.name != "postgresql":
        return Kept(crash=True, failover=False)
    row = (await tx.execute(_KEPT)).one()
    return Kept(row.crash, row.failover)


async def tell(database: Database) -> None:
    """Log at the start which commits the server keeps."""
    if database.is_sqlite:
        return
    async with database.read() as tx:
        kept = await look(tx)
    if not kept.crash:
        log.warning("the store's server loses commits in a crash (fsync or full_page_writes is off)")
    if not kept.failover:
        log.info("the store's server has no synchronous standby: a failover may lose the last commits")
    log.info("store", crash=_word(kept.crash), failover=_word(kept.failover))


async def require_sessions(database: Database) -> None:
    """Raise ConfigError where a pooler stands before the server that gives each transaction another session."""
    if database.is_sqlite:
        return
    import psycopg  # noqa: PLC0415 - only where the store is PostgreSQL

    try:
        if await _is_pooled(database.url):
            raise ConfigError(_POOLED)
    except (psycopg.Error, OSError) as error:
        why = str(error).partition("\n")[0]
        raise StoreUnavailableError(f"the store is not available: {why}") from error


async def _is_pooled(url: URL) -> bool:
    """Whether two clients share sessions, or one has several; nothing is set in them."""
    import psycopg  # noqa: PLC0415

    given = sessions.arguments(url)
    connect = psycopg.AsyncConnection.connect
    async with await connect(**given) as one, await connect(**given) as other:
        seen: dict[int, set[Any]] = {0: set(), 1: set()}
        for _ in range(_ROUNDS):
            for number, connection in ((0, one), (1, other), (1, other), (0, one)):
                seen[number].add(await (await connection.execute(_PID)).fetchone())
    return len(seen[0]) > 1 or len(seen[1]) > 1 or bool(seen[0] & seen[1])


def _word(is_so: bool) -> str:  # noqa: FBT001 - a word for it
    return "yes" if is_so else "no"
