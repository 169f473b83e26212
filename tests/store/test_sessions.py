"""What the store promises holds with every default of a PostgreSQL server, database or role turned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url, text

from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.stages.intake import take_in
from app.store.db import sessions
from app.store.db.database import Database
from app.store.migrations.migrate import is_current, migrate
from tests.conftest import StartPostgres
from tests.support.aio import run
from tests.support.engine import Clock, Engine, engine, until
from tests.support.entries import asked, poke
from tests.support.postgres import PostgresServer
from tests.support.web import WebServer

LONG = timedelta(hours=2)
TURNED = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "300ms",
    "idle_session_timeout": "300ms",
    "idle_in_transaction_session_timeout": "300ms",
    "exit_on_error": "on",
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "gin_fuzzy_search_limit": "1",
    "search_path": "nowhere",
    "lock_timeout": "1ms",
    "application_name": "psql",
    "synchronous_commit": "off",
}
NEWER = {"transaction_timeout"}  # of PostgreSQL 17


@contextmanager
def turned(server: PostgresServer, database: str, level: str, defaults: dict[str, str]) -> Iterator[str]:
    """Give the database, or a role of its own, these defaults; yields the URL to use."""
    role = sql.Identifier(f"role_{database}")
    name = sql.Identifier(database)
    of = sql.SQL("DATABASE {}").format(name) if level == "database" else sql.SQL("ROLE {}").format(role)
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, role))
        for key, value in defaults.items():
            admin.execute(sql.SQL("ALTER {} SET {} = {}").format(of, sql.Identifier(key.lower()), sql.Literal(value)))
        yield server.database_url(database, f"role_{database}")
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO postgres").format(name))
        with psycopg.connect(server.database_url(database), autocommit=True) as inside:
            inside.execute("SET default_transaction_read_only = off")
            inside.execute(sql.SQL("REASSIGN OWNED BY {} TO postgres").format(role))
            inside.execute(sql.SQL("DROP OWNED BY {}").format(role))
        admin.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.fixture(params=["server", "database", "role"])
def ill_kept(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a store where every default is another one than PostgreSQL's."""
    if request.param == "server":
        start: StartPostgres = request.getfixturevalue("start_postgres")
        yield start({key: value for key, value in TURNED.items() if key != "exit_on_error"}).url
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = str(make_url(request.getfixturevalue("postgres_database")).database)
    with turned(server, name, request.param, TURNED) as url:
        yield url


async def shown(database: Database, name: str, *, synced: bool = True) -> str:
    """What a session of the store has."""
    async with database.write(synced=synced) as tx:
        return str((await tx.execute(text("SELECT current_setting(:name)"), {"name": name})).scalar_one())


def test_every_setting_that_is_relied_on_is_turned_here() -> None:
    """One that is added needs a default to be held against."""
    relied_on = sessions.settings(make_url("postgresql://host/store"))
    assert TURNED.keys() - {"synchronous_commit"} == relied_on.keys() - NEWER


def test_a_session_has_what_is_relied_on(ill_kept: str) -> None:
    """Each of them, in sessions of the pools and in those that stand by themselves; and the store is migrated."""

    async def scenario() -> None:
        database = Database(ill_kept)
        wanted = sessions.settings(database.url)
        try:
            await migrate(database)
            assert await is_current(database)
            async with await sessions.connect(database.url) as alone:
                for name, value in wanted.items():
                    if name in NEWER:
                        continue
                    found = await shown(database, name)
                    assert same(value, found), name
                    row = await (await alone.execute("SELECT current_setting(%s)", [name])).fetchone()
                    assert row is not None
                    assert found == row[0]
            assert "on" == await shown(database, "synchronous_commit")
            assert "off" == await shown(database, "synchronous_commit", synced=False)
        finally:
            await database.close()

    run(scenario())


def same(wanted: str, found: str) -> bool:
    """Whether a setting is shown as it was set; the server writes times in another unit."""
    return found in {wanted, {"600s": "10min"}.get(wanted, wanted)}


@asynccontextmanager
async def three(store: str, directory: Path, entry: dict[str, Any], **policy: Any) -> AsyncIterator[list[Engine]]:
    """Three replicas with one catalog and one clock."""
    clock = Clock()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                engine(store, directory, entry, clock=clock, owner=f"replica-{number}", recheck=LONG, **policy)
            )
            for number in range(3)
        ]


async def storm(replicas: list[Engine], count: int) -> None:
    """Have this many alerts decided by all replicas at once."""
    first = replicas[0]
    await first.record(*(first.firing(pod=f"pod-{number}") for number in range(count)))
    while await take_in(first.parts):
        continue
    for one in replicas:
        one.parts.work.set()


def test_a_rate_is_exact(ill_kept: str, tmp_path: Path, sink: WebServer) -> None:
    """Whatever a transaction sees by default: five in an hour are five over three replicas."""

    async def scenario() -> None:
        entry = poke(sink, limits={"cooldown": "0s", "rate": "5/1h"})
        async with three(ill_kept, tmp_path, entry) as replicas:
            await storm(replicas, 18)
            rows = await replicas[0].reached(RunState.SUCCEEDED, RunState.DEFERRED, count=18, seconds=30)
            assert 5 == asked(sink) == sum(row.state == RunState.SUCCEEDED for row in rows)

    run(scenario())


def test_concurrency_is_exact(ill_kept: str, tmp_path: Path, sink: WebServer) -> None:
    """Three act at once over three replicas, and not one more."""

    async def scenario() -> None:
        async with three(ill_kept, tmp_path, poke(sink), concurrency=3) as replicas:
            sink.answering.clear()
            try:
                await storm(replicas, 18)

                async def decided() -> bool:
                    rows = await replicas[0].runs()
                    waiting = sum(row.reason == Reason.CONCURRENCY for row in rows)
                    return waiting == 18 - 3 and asked(sink) == 3

                await until(decided, 30, "three to act and the others to wait", replicas[0].runs)
            finally:
                sink.answering.set()

    run(scenario())


def test_a_schema_that_the_url_names_is_used(postgres_server: PostgresServer, postgres_database: str) -> None:
    """A role's own search path is set over; the URL says where the tables are."""
    with psycopg.connect(postgres_database, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA elsewhere")
    url = make_url(postgres_database).update_query_dict({"options": "-c search_path=elsewhere"})

    async def scenario() -> None:
        database = Database(url.render_as_string(hide_password=False))
        try:
            await migrate(database)
        finally:
            await database.close()

    run(scenario())
    found = postgres_server.execute(
        "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('run', 'event')",
        database=str(url.database),
    )
    assert [("elsewhere",)] == found


def test_commits_that_wait_for_a_standby_go_on_doing_so(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """A default that promises more stays; one that promises less than the disk of a synchronous standby does not."""
    name = str(make_url(postgres_database).database)

    async def scenario(default: str) -> str:
        postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = {default}")
        database = Database(postgres_database)
        try:
            return await shown(database, "synchronous_commit")
        finally:
            await database.close()

    found = {default: run(scenario(default)) for default in ("remote_apply", "on", "remote_write", "local", "off")}
    assert {"remote_apply": "remote_apply", "on": "on", "remote_write": "on", "local": "on", "off": "on"} == found


def test_a_limit_of_milliseconds_does_not_keep_a_session_from_its_settings(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """The limit goes first."""
    name = str(make_url(postgres_database).database)
    postgres_server.execute(f"ALTER DATABASE {name} SET statement_timeout = '2ms'")

    async def scenario() -> None:
        database = Database(postgres_database)
        try:
            async with asyncio.timeout(10), database.write() as tx:
                await tx.execute(text("SELECT pg_sleep(0.05)"))
        finally:
            await database.close()

    run(scenario())
