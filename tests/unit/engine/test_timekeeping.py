"""A clock that is set while the service runs, or between two of its runs, delays nothing and does nothing twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.engine.clock import Timekeeper
from app.store.ledger import leases
from app.store.ledger.leases import Claimant
from tests.support.aio import run
from tests.support.dial import Dial, dial, turns
from tests.support.engine import Clock, Engine, engine, sqlite, until
from tests.support.entries import asked, poke
from tests.support.web import WebServer

__all__ = ["dial"]
HOUR = timedelta(hours=1)
LEASE = timedelta(seconds=30)
MOMENT = timedelta(seconds=2)


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_the_engine_does_not_follow_the_wall_at_once(tmp_path: Path, step: timedelta) -> None:
    """Between two looks its time goes on as if nothing had happened; a look follows."""

    async def scenario() -> None:
        wall = Clock()
        async with engine(sqlite(tmp_path), tmp_path, working=False) as one:
            time = Timekeeper(one.database, wall, LEASE)
            await time.start()
            wall.ahead += step
            assert abs(time() - datetime.now(UTC)) < MOMENT
            await time.compare()
            assert abs(time() - datetime.now(UTC) - step) < MOMENT

    run(scenario())


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "between two runs"])
def test_what_waits_does_not_wait_longer_by_what_the_clock_was_set_back(
    tmp_path: Path, sink: WebServer, running: bool
) -> None:
    """It is looked at once more and put off as the limits say; it would else wait for an hour more."""

    async def scenario() -> None:
        wall = Clock()
        entry = poke(sink, limits={"cooldown": "10m", "rate": "100/1h"})
        async with engine(sqlite(tmp_path), tmp_path, entry, clock=wall) as one:
            time = Timekeeper(one.database, wall, LEASE)
            await time.start()
            await one.fire()
            await one.ended(count=1)
            await one.resolve()
            await one.fire()
            await one.reached(RunState.SUCCEEDED, RunState.DEFERRED, count=2)
            one.loops[1].cancel()  # nobody works, so that what the step does is seen
            wall.ahead -= HOUR
            if running:
                await time.compare()
            else:
                await Timekeeper(one.database, wall, LEASE).start()
            _, second = await one.runs()
            assert second.not_before <= wall()
            assert 1 == asked(sink)

    run(scenario())


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_nobody_loses_a_lease_over_a_step(tmp_path: Path, sink: WebServer, step: timedelta) -> None:
    """Stepped forward it would have run out at once, stepped back a dead owner's would hold for an hour."""

    async def scenario() -> None:
        wall = Clock()
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), clock=wall, working=False) as one:
            time = Timekeeper(one.database, wall, LEASE)
            await time.start()
            await one.fire()
            async with one.database.write() as tx:
                held = await leases.claim(tx, Claimant("other", time() + LEASE), time(), 1)
            assert held.runs
            wall.ahead += step
            await time.compare()
            (row,) = await one.runs()
            left = row.lease_until - time()
            assert LEASE - MOMENT < left <= LEASE
            async with one.database.write() as tx:
                assert not (await leases.claim(tx, Claimant("another", time() + LEASE), time(), 1)).runs
                later = time() + LEASE
                assert (await leases.claim(tx, Claimant("another", later + LEASE), later, 1)).runs

    run(scenario())


def test_a_replica_that_stood_still_changes_nothing_for_the_others(tmp_path: Path, sink: WebServer) -> None:
    """Its own clock stopped with its machine; what it takes for a step is a time in which the others have lived."""

    async def scenario() -> None:
        wall = Clock()
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, settle="10m"), clock=wall) as one:
            still = Timekeeper(one.database, wall, LEASE)
            await still.start()
            wall.ahead += HOUR  # nobody else's clock was set: the others go by this one
            await one.fire()
            before = await until(partial(_settling, one), 10, "the alert to be waited for")
            await still.compare()
            assert abs(still() - wall()) < MOMENT
            assert before == await _settling(one)

    run(scenario())


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
def test_what_was_borrowed_is_given_back_in_its_time(tmp_path: Path, dial: Dial, step: timedelta) -> None:
    """After the alert has stayed away for as long as it says, whatever the clock was set to."""

    async def scenario() -> None:
        wall = Clock()
        entry = turns(dial, revert="on_resolved", revert_after="10m")
        async with engine(sqlite(tmp_path), tmp_path, entry, clock=wall) as one:
            time = Timekeeper(one.database, wall, LEASE)
            await time.start()
            await one.fire()
            await one.ended(count=1)
            await one.resolve()
            wall.ahead += step
            await time.compare()
            (revert,) = [row for row in await one.runs() if row.purpose == Purpose.REVERT]
            assert timedelta(minutes=9) < revert.settle_until - time() <= timedelta(minutes=10)
            assert 5 == dial.value

    run(scenario())


def test_an_alert_keeps_its_time_to_settle(tmp_path: Path, sink: WebServer) -> None:
    """Stepped forward, it would have failed its run at once; stepped back, it ends when it would have."""

    async def scenario() -> None:
        wall = Clock()
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, settle="10m"), clock=wall) as one:
            time = Timekeeper(one.database, wall, LEASE)
            await time.start()
            await one.fire()
            first = await until(partial(_settling, one), 10, "the alert to be waited for") - time()
            one.loops[1].cancel()
            for step in (HOUR, -2 * HOUR):
                wall.ahead += step
                await time.compare()
                end = await _settling(one)
                assert end is not None
                assert first - timedelta(seconds=30) < end - time() <= timedelta(minutes=10)

    run(scenario())


async def _settling(one: Engine) -> datetime | None:
    """Until when the only run waits for its alert to stay away; None while it does not yet."""
    (row,) = await one.reached(RunState.VERIFYING, count=1)
    end: datetime | None = row.settle_until
    return end
