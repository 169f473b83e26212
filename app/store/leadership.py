"""One replica at a time for what several need not do: a lock of PostgreSQL that a dead replica gives back by itself.

For work that is harmless when two do it; whoever must be alone uses a transaction's lock (`Database.write`).
"""

from __future__ import annotations

import asyncio
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from app.store.database import Database
from app.store.sessions import connect

if TYPE_CHECKING:
    from psycopg import AsyncConnection

_ANSWER_SECONDS = 5
log = structlog.get_logger()


class Leadership:
    """A claim to lead in one matter, held over a connection of its own."""

    def __init__(self, database: Database, matter: str) -> None:
        self._database = database
        self._key = zlib.crc32(matter.encode())
        self._connection: AsyncConnection[tuple[Any, ...]] | None = None

    async def held(self) -> bool:
        """Whether this replica leads now; takes the lead where nobody has it. SQLite has one replica, which leads."""
        if self._database.is_sqlite:
            return True
        import psycopg  # noqa: PLC0415 - only where the store is PostgreSQL

        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._still_held() or await self._take()
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("nobody knows who leads", error=str(error).partition("\n")[0])
            await self.close()
            return False

    async def _still_held(self) -> bool:
        if self._connection is None:
            return False
        await self._connection.execute("SELECT 1")
        return True

    async def _take(self) -> bool:
        self._connection = await connect(self._database.url)
        cursor = await self._connection.execute("SELECT pg_try_advisory_lock(%s)", [self._key])
        row = await cursor.fetchone()
        if row is not None and row[0]:
            return True
        await self.close()
        return False

    async def close(self) -> None:
        """Give the lead back."""
        if self._connection is not None:
            from psycopg import Error  # noqa: PLC0415

            with suppress(Error, OSError):
                await self._connection.close()
            self._connection = None
