"""Listening for other replicas goes on whatever the server says meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from app.store.database import Database
from app.store.wakeups import announce, listen_forever
from tests.support.aio import run
from tests.support.engine import until
from tests.support.postgres import PostgresServer


def test_a_server_that_is_a_standby_for_a_moment(start_postgres: Callable[..., PostgresServer]) -> None:
    """It refuses to be listened to, which is no reason to stop; when it is the primary again, it is heard."""
    server = start_postgres()

    async def scenario() -> None:
        heard = asyncio.Event()
        database = Database(server.url)
        server.stop()
        signal = server.data / "standby.signal"
        signal.touch()
        server.start()
        listening = asyncio.create_task(listen_forever(database, "me", heard.set, lambda: None))
        try:
            log = server.data.parent / "postgres.log"
            await until(lambda: _says(log, "cannot execute LISTEN during recovery"), 20, "it to be refused")
            server.stop()
            signal.unlink()
            server.start()
            await until(lambda: _announced(database, heard), 20, "the announcement to be heard")
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await database.close()

    run(scenario())


async def _says(log: Path, words: str) -> bool:
    return words in log.read_text()


async def _announced(database: Database, heard: asyncio.Event) -> bool:
    async with database.write() as tx:
        await announce(tx)
    return heard.is_set()
