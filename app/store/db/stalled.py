"""Cuts off sessions of replicas that stand still in a transaction, where a caller waits for a second only.

The server ends such a session by itself (`sessions.IDLE_IN_TRANSACTION`), later. People stop everything by this.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.domain.errors import StoreUnavailableError
from app.store.db.database import Database
from app.store.migrations.migrate import LOCK as MIGRATE

_STILL_SECONDS, _LOOK_SECONDS = 1.0, 0.25
# Every transaction of the engine has an advisory lock, and long work keeps itself alive; a migration may pause.
_CUT_OFF = text("""
    SELECT pg_terminate_backend(session.pid) FROM pg_stat_activity AS session
    WHERE session.datname = current_database() AND session.usename = current_user
      AND session.application_name = current_setting('application_name') AND session.pid <> pg_backend_pid()
      AND session.state LIKE 'idle in transaction%'
      AND session.state_change < clock_timestamp() - make_interval(secs => :seconds)
      AND EXISTS (SELECT 1 FROM pg_locks AS held
                  WHERE held.pid = session.pid AND held.locktype = 'advisory' AND held.granted)
      AND NOT EXISTS (SELECT 1 FROM pg_locks AS held
                      WHERE held.pid = session.pid AND held.locktype = 'advisory' AND held.objid::bigint = :migrate)
""")
log = structlog.get_logger()


@asynccontextmanager
async def cut_off(database: Database) -> AsyncIterator[None]:
    """Within it, no replica that stands still in a transaction is waited for."""
    if database.is_sqlite:
        yield
        return
    cutting = asyncio.create_task(_cut_forever(database))
    try:
        yield
    finally:
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)


async def _cut_forever(database: Database) -> None:
    await asyncio.sleep(_STILL_SECONDS)
    given = {"seconds": _STILL_SECONDS, "migrate": zlib.crc32(MIGRATE.encode())}
    while True:
        try:
            async with database.read() as tx:
                ended = len((await tx.execute(_CUT_OFF, given)).all())
        except (StoreUnavailableError, DBAPIError) as error:  # the server does it, a little later
            log.warning("a replica that stands still in a transaction cannot be cut off", error=str(error)[:200])
            return
        if ended:
            log.warning("cut off: a replica stood still in the midst of a transaction", sessions=ended)
        await asyncio.sleep(_LOOK_SECONDS)
