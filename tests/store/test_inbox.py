"""Notifications are recorded in groups, and none is answered for that was not committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import event, func, select

from app.domain.errors import StoreUnavailableError
from app.store.db.database import Database
from app.store.db.schema import notification
from app.store.ledger import inbox
from app.store.ledger.inbox import Inbox, Received
from tests.support.aio import run
from tests.support.alerts import NOW
from tests.support.ledger import opened


def received(body: bytes = b"{}", receiver: str = "r") -> Received:
    """A notification to be recorded."""
    return Received(NOW, receiver, "key", 1, 0, body)


@asynccontextmanager
async def committing(database: Database) -> AsyncIterator[Inbox]:
    """An inbox whose loop runs."""
    box = Inbox(database)
    loop = asyncio.create_task(box.commit_forever())
    try:
        yield box
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def stored(database: Database) -> int:
    """How many notifications the store has."""
    async with database.read() as tx:
        return int((await tx.execute(select(func.count()).select_from(notification))).scalar_one())


def test_concurrent_notifications_share_commits(store: str) -> None:
    """Three hundred requests cost a few transactions, and all of them are in."""

    async def scenario() -> None:
        async with opened(store) as database, committing(database) as box:
            commits: list[object] = []
            event.listen(database.engine, "commit", commits.append)
            await asyncio.gather(*(box.record(received(), 30) for _ in range(300)))
            assert 300 == await stored(database)
            assert len(commits) <= 10

    run(scenario())


def test_who_comes_one_after_the_other_shares_a_commit(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notification that is read while another waits for its commit is committed with it."""
    monkeypatch.setattr(inbox, "_GATHER_SECONDS", 60)

    async def scenario() -> None:
        async with opened(store) as database, committing(database) as box:
            await box.record(received(), 30)  # the connection is open then
            commits: list[object] = []
            event.listen(database.engine, "commit", commits.append)
            recording = []
            for _ in range(6):
                recording.append(asyncio.create_task(box.record(received(), 30)))
                await asyncio.sleep(0)
            await asyncio.gather(*recording)
            assert 1 == len(commits)

    run(scenario())


@pytest.mark.parametrize("unbounded", ["_GROUP", "_GATHER_SECONDS"])
def test_nobody_waits_for_those_who_go_on_coming(store: str, monkeypatch: pytest.MonkeyPatch, unbounded: str) -> None:
    """However many come, one in each round of the loop, the first is answered: for the time and for their number."""
    monkeypatch.setattr(inbox, unbounded, 100_000_000)

    async def scenario() -> None:
        async with opened(store) as database, committing(database) as box:
            first = asyncio.create_task(box.record(received(), 30))
            others = []
            async with asyncio.timeout(5):
                while not first.done():
                    others.append(asyncio.create_task(box.record(received(), 30)))
                    await asyncio.sleep(0)
            await asyncio.gather(*others)

    run(scenario())


def test_notifications_wait_in_the_order_in_which_they_came(store: str) -> None:
    """The oldest is taken in first, and what is taken in or set aside waits no more."""

    async def scenario() -> None:
        async with opened(store) as database, committing(database) as box:
            for body in (b"1", b"2", b"3"):
                await box.record(received(body), 30)
            async with database.write() as tx:
                waiting, has_more = await inbox.waiting(tx, 2)
                assert has_more
                assert [b"1", b"2"] == [inbox.unpacked(one.body) for one in waiting]
                await inbox.mark_taken_in(tx, [waiting[0].id], NOW)
                await inbox.mark_taken_in(tx, [waiting[1].id], NOW, set_aside="why")
                assert 1 == await inbox.count_waiting(tx)
                waiting, has_more = await inbox.waiting(tx, 2)
                assert (1, False) == (len(waiting), has_more)
                await inbox.mark_taken_in(tx, [waiting[0].id], NOW)
                assert ([], False) == await inbox.waiting(tx, 2)

    run(scenario())


def test_a_store_that_does_not_commit_in_time_is_said_to_be_unavailable(store: str) -> None:
    """Nobody is told that a notification was recorded before it was."""

    async def scenario() -> None:
        async with opened(store) as database:
            box = Inbox(database)  # its loop does not run
            with pytest.raises(StoreUnavailableError):
                await box.record(received(), 0.05)
            loop = asyncio.create_task(box.commit_forever())
            await box.record(received(b"next"), 30)
            assert 1 == await stored(database)  # what was given up on is not recorded behind the sender's back
            loop.cancel()

    run(scenario())


def test_a_notification_that_cannot_be_stored_fails_alone(postgres_database: str) -> None:
    """PostgreSQL takes no NUL in a text: the others of its group are committed, and the loop goes on."""

    async def scenario() -> None:
        async with opened(postgres_database) as database, committing(database) as box:
            receivers = ["a", "b\0", "c"]
            answers = await asyncio.gather(
                *(box.record(received(receiver=name), 30) for name in receivers), return_exceptions=True
            )
            assert [type(None), StoreUnavailableError, type(None)] == [type(answer) for answer in answers]
            assert 2 == await stored(database)

    run(scenario())
