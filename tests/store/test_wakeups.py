"""Listening for other replicas goes on whatever the server says; what nobody told of is found by looking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from app.store.db import notify
from app.store.db.database import Database
from app.store.db.notify import announce, listen_forever, remind_forever
from app.store.db.schema import breaker
from tests.support.aio import run
from tests.support.engine import until
from tests.support.ledger import opened
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


def test_several_announcements_are_all_heard(postgres_database: str) -> None:
    """Each is told once, right after another or after a silence."""

    async def scenario() -> None:
        heard = asyncio.Event()
        async with opened(postgres_database) as database, asyncio.timeout(30):
            listening = asyncio.create_task(listen_forever(database, "me", heard.set, lambda: None))
            try:
                await heard.wait()  # it listens now
                for silence in (0.0, 0.3, 0.0):  # longer than it reads what comes together
                    await asyncio.sleep(silence)
                    heard.clear()
                    async with database.write() as tx:
                        await announce(tx)
                    await heard.wait()
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    run(scenario())


def test_what_was_written_and_not_told_of_is_looked_for(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that changed something wakes every loop a little later, whoever made it."""
    monkeypatch.setattr(notify, "_REMIND_SECONDS", 0.01)

    async def scenario() -> None:
        woken = asyncio.Event()
        async with opened(store) as database:
            reminding = asyncio.create_task(remind_forever(database, woken.set))
            try:
                for number in range(3):
                    woken.clear()
                    async with database.write() as tx:
                        await tx.execute(insert(breaker).values(remediation=f"r{number}", failures=0))
                    async with asyncio.timeout(20):
                        await woken.wait()
            finally:
                reminding.cancel()
                await asyncio.gather(reminding, return_exceptions=True)

    run(scenario())


def test_looking_is_not_writing(tmp_path: Path) -> None:
    """On SQLite, where nobody else writes: who finds nothing to do must not have everybody look again."""

    async def scenario() -> None:
        async with opened(f"sqlite:///{tmp_path / 'store.db'}") as database:
            assert database.written.is_set()
            database.written.clear()
            async with database.write() as tx:
                await tx.execute(text("SELECT remediation FROM breaker"))
            assert not database.written.is_set()
            async with database.write() as tx:
                await tx.execute(insert(breaker).values(remediation="r", failures=0))
            assert database.written.is_set()

    run(scenario())
