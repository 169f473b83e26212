"""One replica at a time leads, and a dead one gives the lead back by itself."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from app.store.database import Database
from app.store.leadership import Leadership
from tests.support.aio import run
from tests.support.engine import sqlite, until


def test_one_of_two_leads_until_it_dies(postgres_database: str) -> None:
    """The other one takes over; who lost the lead knows it at its next question."""

    async def scenario() -> None:
        databases = Database(postgres_database), Database(postgres_database)
        one, other = (Leadership(database, "matter") for database in databases)
        elsewhere = Leadership(databases[1], "another matter")
        assert [True, True, False, True] == [
            await one.held(),
            await one.held(),
            await other.held(),
            await elsewhere.held(),
        ]
        with psycopg.connect(postgres_database, autocommit=True) as admin:
            name = conninfo_to_dict(postgres_database)["dbname"]
            query = "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            admin.execute(f"{query} WHERE l.locktype = 'advisory' AND d.datname = %s", [name])
        await until(other.held, 10, "the other to lead")
        assert not await one.held()
        await other.close()
        await until(one.held, 10, "the first to lead again")
        for matter in (one, other, elsewhere):
            await matter.close()
        for database in databases:
            await database.close()

    run(scenario())


def test_nobody_leads_without_the_database(postgres_database: str) -> None:
    """It is not known who does, so nobody acts."""

    async def scenario() -> None:
        gone = Database(postgres_database.rpartition("/")[0] + "/there_is_no_such_database")
        assert not await Leadership(gone, "matter").held()
        await gone.close()

    run(scenario())


def test_the_only_replica_leads(tmp_path: Path) -> None:
    """On SQLite there is no other."""

    async def scenario() -> None:
        database = Database(sqlite(tmp_path))
        assert await Leadership(database, "matter").held()
        await database.close()

    run(scenario())
