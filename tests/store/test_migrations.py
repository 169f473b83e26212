"""The store's schema comes from the migrations, forward only."""

from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from app.domain.errors import ConfigError
from app.store.database import Database
from app.store.migrate import is_current, migrate
from app.store.schema import metadata
from tests.support.aio import run
from tests.support.ledger import opened


def test_an_empty_store_is_brought_up_to_date_once(store: str) -> None:
    """From nothing to the newest revision, and then there is nothing left to do."""

    async def scenario() -> None:
        database = Database(store)
        assert not await is_current(database)
        before, after = await migrate(database)
        assert before is None
        assert (after, after) == await migrate(database)
        assert await is_current(database)
        await database.close()

    run(scenario())


def test_migrated_tables_are_those_that_the_code_uses(store: str) -> None:
    """The migrations and the table definitions say the same."""

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async def scenario() -> None:
        async with opened(store) as database, database.read() as tx:
            assert [] == await tx.run_sync(differences)

    run(scenario())


def test_a_store_of_a_newer_release_is_refused(store: str) -> None:
    """Going back is not possible; the message says what is."""

    async def scenario() -> None:
        async with opened(store) as database:
            async with database.write() as tx:
                await tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            with pytest.raises(ConfigError, match="newer release"):
                await migrate(database)

    run(scenario())


def test_replicas_that_start_together_migrate_once(store: str) -> None:
    """One does it, the other waits and finds it done."""

    async def scenario() -> None:
        one, other = Database(store), Database(store)
        befores = [before for before, _ in await asyncio.gather(migrate(one), migrate(other))]
        assert 1 == befores.count(None)
        await one.close()
        await other.close()

    run(scenario())
