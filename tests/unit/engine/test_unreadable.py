"""A run that no release can read is ended like any other: nothing waits for it any longer, and people hear of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from app.backends.connections import Connections
from app.backends.redis.backend import RedisConnection
from app.backends.secrets import SecretSource
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.engine.pipeline import advance
from app.store.db.schema import message, run, step
from app.store.gates import breakers
from app.store.gates.breakers import Ended
from app.store.ledger import leases
from app.store.ledger.leases import Claimant
from tests.support.aio import run as run_loop
from tests.support.dial import Dial, dial, turn, turns
from tests.support.engine import Engine, engine, sqlite

__all__ = ["dial"]
HOUR = timedelta(hours=1)
URL = SecretSource(value=SecretStr("redis://127.0.0.1:9"))  # it is not asked
SHARED = {"connections": Connections(redis={"cache": RedisConnection(url=URL)})}


def entry(dial: Dial, **fields: Any) -> dict[str, Any]:
    """Turns the dial for a tenant, so that no two alerts share a run."""
    limits = {"cooldown": "0s", "rate": "1000/1h", "breaker": 1, "breaker_pause": "30m"}
    on = {"target": {"redis": {"instance": "cache"}}, "steps": [turn(dial, to="{{ labels.to }}")]}
    return turns(dial, **(on | {"limits": limits} | fields))


async def admitted(one: Engine) -> str:
    """The oldest run, let through by a replica that then dies."""
    now = one.clock()
    async with one.database.write() as tx:
        (held,) = (await leases.claim(tx, Claimant("dead", now + timedelta(seconds=30)), now, 1)).runs
    moved = await advance(one.parts, held)
    assert moved is not None
    assert RunState.RUNNING == moved.state
    return moved.id


async def spoil(one: Engine, run_id: str) -> None:
    """Another release has written what this one does not know, and is not seen again."""
    async with one.database.write() as tx:
        await tx.execute(update(run).where(run.c.id == run_id).values(spec={"unknown": True}))
    one.clock.ahead += 2 * HOUR


async def claim(one: Engine) -> None:
    """One look of the worker for what is due."""
    await one.worker._lease(0.0, 5)


def test_what_waited_for_it_goes_on(tmp_path: Path, dial: Dial) -> None:
    """The breaker's trial is over, the run that waited for the target is due, and people are told, once."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, entry(dial), working=False, channel="ops", **SHARED) as one:
            async with one.database.write() as tx:
                opened = Ended("turn", "before", helped=False)
                await breakers.record(tx, opened, one.catalog().remediations["turn"].limits, one.clock())
            one.clock.ahead += HOUR
            await one.fire(to="5")
            trial = await admitted(one)
            async with one.database.read() as tx:
                assert trial == (await breakers.get(tx, "turn")).trial
            await one.fire(to="7")
            second = (await one.runs())[1].id
            async with one.database.write() as tx:
                waits = {"state": "deferred", "reason": Reason.TARGET_BUSY, "target_key": "redis:cache/0"}
                later = one.clock() + 24 * HOUR
                await tx.execute(update(run).where(run.c.id == second).values(waits | {"not_before": later}))
            await spoil(one, trial)
            await claim(one)
            first, after = await one.runs()
            assert (RunState.FAILED, Reason.UNEXPECTED, False) == (first.state, first.reason, first.effective)
            assert after.not_before <= one.clock()
            async with one.database.read() as tx:
                breaker = await breakers.get(tx, "turn")
                (told,) = (await tx.execute(select(message).where(message.c.key == f"ended:{trial}"))).all()
            assert (None, 2) == (breaker.trial, breaker.failures)
            assert "Failed: turn on redis:cache/0" == told.title

    run_loop(scenario())


@pytest.mark.parametrize(("known", "acted"), [(True, False), (False, False), (False, True)])
def test_a_trial_is_given_back(tmp_path: Path, dial: Dial, *, known: bool, acted: bool) -> None:
    """Where it did nothing, and where the catalog has no remediation any more that could say how to count it."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, entry(dial), working=False, **SHARED) as one:
            await one.fire(to="5")
            (row,) = await one.runs()
            async with one.database.write() as tx:
                opened = Ended("turn", "before", helped=False)
                await breakers.record(tx, opened, one.catalog().remediations["turn"].limits, one.clock())
                await breakers.begin_trial(tx, "turn", row.id)
                if acted:
                    await tx.execute(update(run).where(run.c.id == row.id).values(admitted_at=one.clock()))
            if not known:
                one.catalog.put()
            await spoil(one, row.id)
            await claim(one)
            async with one.database.read() as tx:
                breaker = await breakers.get(tx, "turn")
            assert (None, 1) == (breaker.trial, breaker.failures)

    run_loop(scenario())


def test_what_was_borrowed_is_given_back(tmp_path: Path, dial: Dial) -> None:
    """The revert waited for the run that is now ended; its alert is over."""

    async def scenario() -> None:
        borrows = entry(dial, revert="on_resolved", revert_after="10m", limits={"cooldown": "0s"})
        async with engine(sqlite(tmp_path), tmp_path, borrows, working=False, **SHARED) as one:
            await one.fire(to="5")
            first = await admitted(one)
            async with one.database.write() as tx:
                done = {"state": "succeeded", "active": False, "holds_target": False, "finished_at": one.clock()}
                await tx.execute(update(run).where(run.c.id == first).values(done | {"lease_owner": None}))
                planned = (await one.runs())[0].plan["steps"][0]
                row = {"run_id": first, "rung": 0, "position": 0, "action": "test.turn", "planned": planned}
                row |= {"state": "succeeded", "tries": 1, "started_at": one.clock()}
                await tx.execute(step.insert(), [row])
            await one.fire(to="7")
            second = await admitted(one)
            await one.resolve(to="5")
            await one.resolve(to="7")
            assert [] == [row for row in await one.runs() if row.purpose == Purpose.REVERT]
            await spoil(one, second)
            await claim(one)
            assert [first] == [row.undoes for row in await one.runs() if row.purpose == Purpose.REVERT]

    run_loop(scenario())
