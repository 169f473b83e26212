"""Tells the other replicas that there is something for them, by PostgreSQL's LISTEN and NOTIFY.

A hint only: a replica that misses one finds the work when it next looks, and changed files of the catalog too. SQLite
has one replica, which needs none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy import text
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from app.domain.errors import CommitUnknownError, StoreUnavailableError
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.sessions import connect

_CHANNEL = "remediator"
_PAUSE_SECONDS = 2.0
_REMIND_SECONDS = 1.0
_REMIND_OF_OTHERS_SECONDS = 2.0  # they tell of their writes, and a hint may be missed
_BATCH_SECONDS = 0.1  # a hint so soon after another is read with it
_TRIES = 3
_RELOAD = "reload "  # before the name of the replica that was asked to, and has done it
log = structlog.get_logger()


async def announce(tx: AsyncConnection) -> None:
    """Wake all replicas when the transaction is committed."""
    if tx.dialect.name == "postgresql":
        await tx.execute(text(f"NOTIFY {_CHANNEL}"))


async def announce_reload(database: Database, owner: str) -> bool:
    """Have all other replicas read their catalog's files again; False where they may not have been told.

    A replica that does not hear of it sees that its files have changed.
    """
    try:
        if not database.is_sqlite:
            await _tell_of_reload(database, owner)
    except StoreUnavailableError as error:
        log.warning("other replicas may not have been told of a reload", error=error.message)
        return False
    return True


@retry(retry=retry_if_exception_type(CommitUnknownError), stop=stop_after_attempt(_TRIES), reraise=True)
async def _tell_of_reload(database: Database, owner: str) -> None:
    """Tell them, twice rather than perhaps not at all."""
    async with database.write() as tx:
        await tx.execute(text("SELECT pg_notify(:channel, :what)"), {"channel": _CHANNEL, "what": _RELOAD + owner})


async def listen_forever(database: Database, owner: str, wake: Callable[[], None], reload: Callable[[], None]) -> None:
    """Call `wake` for each announcement of any replica, `reload` where another asks for that; until cancelled."""
    if database.is_sqlite:
        return
    import psycopg  # noqa: PLC0415 - only where the store is PostgreSQL

    while True:
        try:
            connection = await connect(database.url)
            async with connection:
                await connection.execute(f"LISTEN {_CHANNEL}")
                wake()  # for announcements before it listened
                while True:
                    async for heard in connection.notifies(timeout=_BATCH_SECONDS):
                        wake()
                        if heard.payload.startswith(_RELOAD) and heard.payload != _RELOAD + owner:
                            reload()
                    await _readable(connection.fileno())
        except (psycopg.Error, OSError) as error:  # also a server that is just a standby
            log.warning("not listening for other replicas", error=str(error).partition("\n")[0])
        await asyncio.sleep(_PAUSE_SECONDS)


async def remind_forever(database: Database, wake: Callable[[], None]) -> None:
    """Call `wake` a second after any write, whether or not a notification came; until cancelled.

    Where other replicas write too, that is every two seconds: all loops look at once, and not each at its own time.
    """
    while True:
        await database.written.wait()
        await asyncio.sleep(_REMIND_SECONDS if database.is_sqlite else _REMIND_OF_OTHERS_SECONDS)
        if database.is_sqlite:
            database.written.clear()
        wake()


async def _readable(socket: int) -> None:
    """Wait until the server has sent something or is gone; psycopg would look for it ten times a second."""
    loop, sent = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(socket, sent.set)
    try:
        await sent.wait()
    finally:
        loop.remove_reader(socket)
