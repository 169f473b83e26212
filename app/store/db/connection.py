"""SQLAlchemy's connections for asyncio: a call that waits for the database lets everything else go on.

SQLAlchemy has this in `sqlalchemy.ext.asyncio`, which imports its ORM: 7 MiB for nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, CursorResult, Dialect, Engine, Executable, text
from sqlalchemy.util import greenlet_spawn

T = TypeVar("T")
_NOTHING = text("SELECT 1")


class AsyncConnection:
    """One that is open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, engine: Engine) -> Self:
        """Take one from the pool."""
        return cls(await greenlet_spawn(engine.connect))

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement."""
        return await greenlet_spawn(self._connection.execute, statement, parameters)

    async def run_sync(self, call: Callable[..., T], *args: Any) -> T:
        """Call a function that needs SQLAlchemy's own connection."""
        return await greenlet_spawn(call, self._connection, *args)

    def in_transaction(self) -> bool:
        """Whether one has begun and not ended."""
        return self._connection.in_transaction()

    async def keep_alive(self) -> None:
        """Let everything else go on in the midst of long work, and the server know that this replica lives."""
        if self.dialect.name == "postgresql":
            await self.execute(_NOTHING)
        else:
            await asyncio.sleep(0)

    async def rollback(self) -> None:
        """Undo the transaction."""
        await greenlet_spawn(self._connection.rollback)

    async def invalidate(self) -> None:
        """Keep it from being used again."""
        await greenlet_spawn(self._connection.invalidate)

    async def close(self) -> None:
        """Give it back to the pool, without its uncommitted writes."""
        await greenlet_spawn(self._connection.close)

    @property
    def dialect(self) -> Dialect:
        """Which database it is of."""
        return self._connection.dialect

    @property
    def info(self) -> dict[Any, Any]:
        """The notes about it from its making."""
        return self._connection.info


@asynccontextmanager
async def transaction(engine: Engine) -> AsyncIterator[AsyncConnection]:
    """A transaction on a connection of its own, committed at the end."""
    async with _waiting(engine.begin()) as connection:
        yield AsyncConnection(connection)


@asynccontextmanager
async def _waiting(block: AbstractContextManager[T]) -> AsyncIterator[T]:
    """`with`, for a block whose begin and end wait for the database."""
    value = await greenlet_spawn(block.__enter__)
    try:
        yield value
    except BaseException as error:
        await greenlet_spawn(block.__exit__, type(error), error, error.__traceback__)
        raise
    await greenlet_spawn(block.__exit__, None, None, None)
