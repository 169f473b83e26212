"""What the store's drivers raise becomes ours, without secrets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select, text, update
from sqlalchemy.exc import ProgrammingError

from app.domain.episodes import receive
from app.domain.errors import ConfigError, StoreUnavailableError
from app.engine.stages import intake
from app.store.db import database as database_module
from app.store.db import sessions
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.pace import work_in_background
from app.store.db.schema import run as table
from app.store.ledger import episodes
from app.store.migrations.migrate import migrate
from tests.support import frozen
from tests.support.aio import run
from tests.support.engine import engine
from tests.support.ledger import opened, seed
from tests.support.processes import free_port

PASSWORD = "correct-horse"


async def _ask(url: str) -> None:
    database = Database(url)
    try:
        async with database.read() as tx:
            await tx.execute(text("SELECT 1"))
    finally:
        await database.close()


def test_a_server_that_is_away_is_unavailable() -> None:
    """A refused connection is no crash, and the message does not have the password."""
    with pytest.raises(StoreUnavailableError) as raised:
        run(_ask(f"postgresql://shop:{PASSWORD}@127.0.0.1:{free_port()}/shop"))
    assert PASSWORD not in raised.value.message


def test_a_database_that_does_not_exist_is_unavailable(postgres_database: str) -> None:
    """The driver's first line says which."""
    with pytest.raises(StoreUnavailableError, match="does not exist"):
        run(_ask(f"{postgres_database}_not"))


@pytest.mark.parametrize("rests", [True, False])
def test_a_connection_that_died_is_replaced(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, rests: bool
) -> None:
    """Without anybody noticing where it had rested; one that was in use just now fails once, and all are replaced."""
    if rests:
        monkeypatch.setattr(database_module, "_FRESH_SECONDS", 0)

    async def scenario() -> list[bool]:
        database, other = Database(postgres_database), Database(postgres_database)
        asked = []
        try:
            async with database.write() as one, database.write() as two, database.read() as three:
                pids = [await _pid(tx) for tx in (one, two, three)]
            async with other.write() as tx:
                for pid in pids:
                    await tx.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            for _ in range(3):
                try:
                    async with database.write() as tx:
                        asked.append(await _pid(tx) not in pids)
                except StoreUnavailableError:
                    asked.append(False)
        finally:
            await database.close()
            await other.close()
        return asked

    assert [rests, True, True] == run(scenario())


def test_runs_that_wait_for_a_lock_leave_connections_to_others(postgres_database: str) -> None:
    """There are twenty, and a storm has more runs that wait. What people ask for does not wait behind all of those."""

    async def scenario() -> None:
        database, order = Database(postgres_database), list[str]()

        async def write(name: str) -> None:
            if name == "run":
                work_in_background()
            async with database.write(lock="a", synced=False) as tx:
                await tx.execute(text("SELECT 1"))
                order.append(name)

        try:
            async with database.write(lock="a"):
                waiting = [asyncio.create_task(write("run")) for _ in range(50)]
                await asyncio.wait(waiting, timeout=0.2)
                async with asyncio.timeout(2), database.browse() as tx:
                    await tx.execute(text("SELECT 1"))
                waiting.append(asyncio.create_task(write("person")))
                await asyncio.wait(waiting, timeout=0.2)
                assert not order
            await asyncio.gather(*waiting)
        finally:
            await database.close()
        assert 5 > order.index("person"), order

    run(scenario())


def test_people_who_wait_for_a_lock_leave_connections_to_others(postgres_database: str) -> None:
    """Another replica may have it, for as long as it takes; notifications are recorded meanwhile."""

    async def scenario() -> None:
        database, other = Database(postgres_database), Database(postgres_database)

        async def write() -> None:
            async with database.write(lock="a") as tx:
                await tx.execute(text("SELECT 1"))

        try:
            async with other.write(lock="a"):
                waiting = [asyncio.create_task(write()) for _ in range(50)]
                await asyncio.wait(waiting, timeout=0.2)
                async with asyncio.timeout(2), database.write() as tx:
                    await tx.execute(text("SELECT 1"))
                assert not any(one.done() for one in waiting)
            await asyncio.gather(*waiting)
        finally:
            await database.close()
            await other.close()

    run(scenario())


@pytest.mark.parametrize("in_background", [True, False])
def test_a_lock_that_is_never_given_back_is_not_waited_for_for_ever(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, in_background: bool
) -> None:
    """Who waits in the server is told, and everybody who waits behind, people soon."""
    monkeypatch.setattr(sessions, "LOCK_SECONDS", 0.5)
    monkeypatch.setattr(database_module, "_SOON_SECONDS", 0.3)

    async def scenario() -> None:
        database, other = Database(postgres_database), Database(postgres_database)

        async def write() -> None:
            if in_background:
                work_in_background()
            async with database.write(lock="a"):
                pass

        try:
            async with other.write(lock="a"), asyncio.timeout(4):  # one pair after the other would take 10 s
                ends = await asyncio.gather(*(write() for _ in range(40)), return_exceptions=True)
            assert {StoreUnavailableError} == {type(end) for end in ends}, ends
            assert any("lock timeout" in str(end) for end in ends), ends
            behind = f"others wait for the store's lock 'a', for {0.5 if in_background else 0.3} s now"
            assert any(behind in str(end) for end in ends), ends
            await write()
        finally:
            await database.close()
            await other.close()

    run(scenario())


def test_a_limit_that_the_url_names_stays(postgres_database: str) -> None:
    """Every other default of the server, the database or the role is set over."""

    async def shown(url: str) -> str:
        database = Database(url)
        try:
            async with database.write() as tx:
                return str((await tx.execute(text("SHOW lock_timeout"))).scalar_one())
        finally:
            await database.close()

    assert "10min" == run(shown(postgres_database))
    strict = make_url(postgres_database).update_query_dict({"options": "-c lock_timeout=3s"})
    assert "3s" == run(shown(strict.render_as_string(hide_password=False)))


def test_only_what_need_not_be_on_the_disk_does_not_wait_for_it(postgres_database: str) -> None:
    """Whatever the server's default is; the bed's servers do not wait."""

    async def scenario() -> list[str]:
        database, found = Database(postgres_database), []
        try:
            for synced in (True, False):
                async with database.write(synced=synced) as tx:
                    found.append(str((await tx.execute(text("SHOW synchronous_commit"))).scalar_one()))
        finally:
            await database.close()
        return found

    assert ["on", "off"] == run(scenario())


async def _pid(tx: AsyncConnection) -> int:
    return int((await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one())


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://shop:{PASSWORD}@127.0.0.1:port/shop",
        f"mysql://shop:{PASSWORD}@127.0.0.1/shop",
        f"shop:{PASSWORD}@127.0.0.1",
        f"//{PASSWORD}",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_url_that_cannot_be_used_is_a_configuration_error(url: str) -> None:
    """It is said what it must look like, and not what was given."""
    with pytest.raises(ConfigError) as raised:
        Database(url)
    assert PASSWORD not in raised.value.message


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    """A damaged file is told apart from a bug of ours."""
    file = tmp_path / "store.db"
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreUnavailableError, match="not a database"):
        run(_ask(f"sqlite:///{file}"))


def test_a_read_only_server_is_unavailable(store: str) -> None:
    """A primary that became a standby takes no writes; that is no bug of ours."""

    async def scenario() -> None:
        async with opened(store) as database:
            with pytest.raises(StoreUnavailableError):
                await _write_on_a_standby(database)

    run(scenario())


async def _write_on_a_standby(database: Database) -> None:
    async with database.write() as tx:
        await tx.execute(text("PRAGMA query_only = 1" if database.is_sqlite else "SET TRANSACTION READ ONLY"))
        await tx.execute(text("DELETE FROM event"))


def test_a_wrong_statement_is_not_taken_for_an_outage(postgres_database: str) -> None:
    """Otherwise it would be tried for ever, and nobody would see why."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            with pytest.raises(ProgrammingError):
                async with database.write() as tx:
                    await tx.execute(text("DELETE FROM no_such_table"))

    run(scenario())


def test_errors_do_not_show_the_values_of_statements(store: str) -> None:
    """What is logged with a traceback must not hold what alerts say."""

    async def scenario() -> None:
        async with opened(store) as database:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - the drivers differ in its type
                async with database.write() as tx:
                    await tx.execute(text("INSERT INTO run (id) VALUES (:value)"), {"value": PASSWORD})
            assert f"'{PASSWORD}'" not in str(raised.value)

    run(scenario())


def test_a_second_process_cannot_serve_the_same_file(tmp_path: Path) -> None:
    """Two workers on one SQLite file would not see each other's leases."""

    async def scenario() -> None:
        url = f"sqlite:///{tmp_path / 'store.db'}"
        one, other = Database(url), Database(url)
        one.claim_file()
        with pytest.raises(ConfigError, match="another process"):
            other.claim_file()
        await one.close()
        other.claim_file()
        await other.close()

    run(scenario())


def test_decisions_are_made_one_after_the_other(store: str) -> None:
    """Two replicas that hold the same named lock never overlap."""

    async def scenario() -> None:
        inside, seen = 0, []

        async def decide(database: Database) -> None:
            nonlocal inside
            async with database.write(lock="admission") as tx:
                inside += 1
                seen.append(inside)
                await tx.execute(text("SELECT 1"))
                inside -= 1

        one, other = Database(store), Database(store)
        await migrate(one)
        await asyncio.gather(*(decide(database) for database in [one, other] * 10))
        assert {1} == set(seen)
        await one.close()
        await other.close()

    run(scenario())


@pytest.mark.parametrize("lock", ["admission", "intake", None])
def test_a_replica_that_freezes_in_a_decision_is_cut_off(postgres_database: str, lock: str | None) -> None:
    """The server ends its transaction, whichever lock it holds, and the others go on within seconds."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            run_id = (await seed(database))[0].id
            statement = f"UPDATE run SET message = 'frozen' WHERE id = '{run_id}'"
            with frozen.in_transaction(postgres_database, statement, lock):
                async with asyncio.timeout(20), database.write(lock=lock) as tx:
                    before = (await tx.execute(select(table.c.message).where(table.c.id == run_id))).scalar_one()
                    changed = await tx.execute(update(table).where(table.c.id == run_id).values(message="on"))
            assert ("", 1) == (before, changed.rowcount)

    run(scenario())


def test_a_decision_that_takes_long_keeps_itself_alive(
    postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notification with many alerts on a slow machine is no frozen replica."""
    monkeypatch.setattr(sessions, "IDLE_IN_TRANSACTION", "3s")

    def slow(*given: Any) -> Any:
        time.sleep(0.01)  # the slow machine
        return receive(*given)

    monkeypatch.setattr(intake, "receive", slow)

    async def scenario() -> None:
        async with engine(postgres_database, tmp_path, working=False) as one:
            await one.deliver(*(one.firing(pod=f"pod-{number}") for number in range(400)))
            async with one.database.read() as tx:
                assert 400 == len(await episodes.all_open(tx))

    run(scenario())
