"""The store's schema comes from the migrations, forward only."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from app.domain.errors import ConfigError
from app.store.db.database import Database
from app.store.db.schema import metadata
from app.store.migrations.migrate import is_current, migrate, revisions
from app.store.migrations.upgrade import config, upgrade
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


def test_a_new_file_has_what_the_migrations_make(tmp_path: Path) -> None:
    """An empty SQLite file gets its tables at once, without Alembic; a file of an old release gets the same."""

    async def scenario() -> None:
        made, migrated = (Database(f"sqlite:///{tmp_path / name}.db") for name in ("made", "migrated"))
        await migrate(made)
        async with migrated.write() as tx:
            await tx.run_sync(upgrade)
        assert await is_current(migrated)
        await made.close()
        await migrated.close()

    run(scenario())
    assert _described(tmp_path / "migrated.db") == _described(tmp_path / "made.db")


def _described(file: Path) -> dict[str, Any]:
    """Everything about a file's tables but the order of their columns."""
    with sqlite3.connect(file) as store:

        def ask(pragma: str, name: str) -> list[Any]:
            return store.execute(f"SELECT * FROM pragma_{pragma}(?)", [name]).fetchall()

        def indexes(table: str) -> list[Any]:
            found = []
            for _, name, unique, origin, partial in ask("index_list", table):
                sql = store.execute("SELECT sql FROM sqlite_master WHERE name = ?", [name]).fetchone()[0] or ""
                columns = [(row[2], row[3], row[4]) for row in ask("index_xinfo", name) if row[5]]
                named = name if sql else ""
                found.append((named, origin, columns, unique, partial, sql.partition(" WHERE ")[2]))
            return sorted(found, key=str)

        tables = dict(store.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
        described: dict[str, Any] = {
            name: {
                "columns": sorted(row[1:] for row in ask("table_xinfo", name)),
                "keys": sorted(row[2:] for row in ask("foreign_key_list", name)),
                "indexes": indexes(name),
                "names": sorted(re.findall(r'CONSTRAINT "?(\w+)', sql)),
            }
            for name, sql in tables.items()
        }
        return described | {"version": store.execute("SELECT version_num FROM alembic_version").fetchall()}


def test_the_names_of_the_files_are_the_revisions() -> None:
    """What the start reads off them is what Alembic follows, one after the other."""
    scripts = ScriptDirectory.from_config(config())
    assert [script.revision for script in scripts.walk_revisions()][::-1] == revisions()


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
