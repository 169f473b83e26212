"""Episodes and runs written straight to a store, for tests of the store itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from app.domain.episodes import Episode, EpisodeRules, receive
from app.engine.stages.intake import pending_run
from app.store.db.database import Database
from app.store.db.schema import event
from app.store.ledger import episodes, leases, runs
from app.store.ledger.leases import Claimant
from app.store.ledger.runs import Run
from app.store.migrations.migrate import migrate
from tests.support.alerts import NOW, parsed
from tests.support.engine import read

LEASE = timedelta(seconds=30)


@asynccontextmanager
async def opened(url: str, audit_key: bytes = b"") -> AsyncIterator[Database]:
    """A migrated store."""
    database = Database(url, audit_key=audit_key)
    try:
        await migrate(database)
        yield database
    finally:
        await database.close()


def new_episode(identity: str = "a1") -> Episode:
    """An open episode that nobody has written."""
    alert = parsed(fingerprint=identity)
    return receive(alert, identity, None, NOW, EpisodeRules()).written[0]


async def seed(database: Database, count: int = 1, **entry: Any) -> list[Run]:
    """Pending runs, each of an open episode of its own."""
    found = [new_episode(f"{number:04x}") for number in range(count)]
    pending = [pending_run(read(**entry), "digest", one, NOW) for one in found]
    async with database.write() as tx:
        await episodes.create(tx, found)
        await runs.create(tx, pending)
        await episodes.link(tx, [(run.id, one.id) for run, one in zip(pending, found, strict=True)])
    return pending


async def claim(
    database: Database, owner: str = "me", *, now: datetime = NOW, limit: int = 10, in_work: tuple[str, ...] = ()
) -> list[Run]:
    """What this owner gets at this moment."""
    async with database.write() as tx:
        return (await leases.claim(tx, Claimant(owner, now + LEASE, in_work), now, limit)).runs


async def seed_claimed(database: Database, owner: str = "me", **entry: Any) -> Run:
    """One pending run that this owner holds."""
    await seed(database, **entry)
    return (await claim(database, owner))[0]


async def fetch(database: Database, run_id: str) -> Run:
    """The run as the ledger has it."""
    async with database.read() as tx:
        found = await runs.get(tx, run_id)
    assert found is not None
    return found


async def count_events(database: Database, run_id: str) -> int:
    """How many events a run has."""
    async with database.read() as tx:
        query = select(func.count()).select_from(event).where(event.c.run_id == run_id)
        return int((await tx.execute(query)).scalar_one())


def unleased(run: Run) -> Run:
    """A run as it is compared when only its lease may differ."""
    return replace(run, lease_owner=None, lease_epoch=0)
