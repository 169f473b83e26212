"""Wakes the other replicas when there is something for them, by PostgreSQL's LISTEN and NOTIFY.

A hint only: whoever misses one finds the work when it next looks. SQLite has one replica, which needs none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import Database

_CHANNEL = "remediator"
_PAUSE_SECONDS = 2.0
log = structlog.get_logger()


async def announce(tx: AsyncConnection) -> None:
    """Wake all replicas when the transaction is committed."""
    if tx.dialect.name == "postgresql":
        await tx.execute(text(f"NOTIFY {_CHANNEL}"))


async def listen_forever(database: Database, wake: Callable[[], None]) -> None:
    """Call `wake` for each announcement of any replica, until cancelled."""
    if database.is_sqlite:
        return
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            connection = await psycopg.AsyncConnection.connect(url, autocommit=True, application_name="remediator")
            async with connection:
                await connection.execute(f"LISTEN {_CHANNEL}")
                wake()  # for what was announced while nobody listened
                async for _ in connection.notifies():
                    wake()
        except psycopg.OperationalError as error:
            log.warning("not listening for other replicas", error=str(error).partition("\n")[0])
        await asyncio.sleep(_PAUSE_SECONDS)
