"""A transaction that PostgreSQL gives up for another one is run again; that is no outage, and nothing happens twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.errors import TransactionLostError
from app.domain.states import RunState
from app.engine.stages import admission
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.rerun import rerun
from app.store.ledger import steps
from tests.support.aio import run
from tests.support.engine import engine
from tests.support.entries import asked, poke, request
from tests.support.ledger import opened, seed
from tests.support.web import WebServer

CODES = ("40001", "40P01")


def give_up(code: str) -> str:
    """A statement that the server answers as it answers the loser of two transactions."""
    return f"DO $$ BEGIN RAISE EXCEPTION 'gib auf' USING ERRCODE = '{code}'; END $$"


def test_of_two_that_wait_for_each_other_both_are_done(
    postgres_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them a second time; nobody is told of an outage."""
    errors: list[str] = []

    async def scenario() -> int:
        async with opened(postgres_database) as one:
            other = Database(postgres_database, on_error=lambda: errors.append("error"))
            first, second = (found.id for found in await seed(one, 2))
            meeting = asyncio.Barrier(2)
            tries = 0

            @rerun
            async def touch(database: Database, ids: tuple[str, str]) -> None:
                nonlocal tries
                tries += 1
                async with database.write() as tx:
                    for number, run_id in enumerate(ids):
                        if number == 1 and tries <= 2:
                            await meeting.wait()
                        query = text("UPDATE run SET attempt = attempt + 1 WHERE id = :id")
                        await tx.execute(query, {"id": run_id})

            async with asyncio.timeout(20):
                await asyncio.gather(touch(one, (first, second)), touch(other, (second, first)))
            async with one.read() as tx:
                found = list((await tx.execute(text("SELECT attempt FROM run"))).scalars())
            await other.close()
            assert [3, 3] == found
            return tries

    assert 3 == run(scenario())
    assert [] == errors
    assert "the store is away" not in capsys.readouterr().out


@pytest.mark.parametrize("code", CODES)
def test_who_always_loses_is_told_in_the_end(postgres_database: str, code: str) -> None:
    """It is not tried for ever."""

    async def scenario() -> int:
        tries = 0
        async with opened(postgres_database) as database:

            @rerun
            async def lose() -> None:
                nonlocal tries
                tries += 1
                async with database.write() as tx:
                    await tx.execute(text(give_up(code)))

            with pytest.raises(TransactionLostError):
                await lose()
        return tries

    assert 10 == run(scenario())


def losing(real: Callable[..., Any], code: str) -> tuple[Callable[..., Any], list[int]]:
    """A function of the store whose transaction is lost at its first two calls, and the count of its calls."""
    calls: list[int] = []

    async def lose(tx: AsyncConnection, *given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) <= 2:
            await tx.execute(text(give_up(code)))
        return await real(tx, *given, **named)

    return lose, calls


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(("module", "name"), [(admission, "gather"), (steps, "start"), (steps, "finish")])
def test_a_stage_that_lost_its_transaction_goes_on(  # noqa: PLR0917 - pytest's
    postgres_database: str,
    tmp_path: Path,
    sink: WebServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: Any,
    name: str,
    code: str,
) -> None:
    """At once, under the same lease; a request that must not be repeated is sent once."""
    lose, calls = losing(getattr(module, name), code)
    monkeypatch.setattr(module, name, lose)

    async def scenario() -> None:
        async with engine(postgres_database, tmp_path, poke(sink, steps=[request(sink, method="POST")])) as one:
            await one.fire()
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, 1) == (row.state, asked(sink))
            kinds = await one.kinds(row.id)
            assert 1 == kinds.count("step_started") == kinds.count("step_succeeded")

    run(scenario())
    assert len(calls) >= 3
    told = capsys.readouterr().out
    assert "the store is away" not in told
    assert "the store went away" not in told
