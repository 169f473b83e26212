"""What another owner finds of a run is what it goes on with, and who lost a run leaves it alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from app.domain.plans import Plan
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.pipeline import advance
from app.engine.stages.admission import DecisionInput, admit
from app.store.ledger import leases, steps
from app.store.ledger.leases import Claimant
from app.store.ledger.runs import Run
from app.store.ledger.steps import StepOutcome
from tests.support.aio import run
from tests.support.engine import Engine, engine, sqlite
from tests.support.entries import asked, poke, request
from tests.support.processes import free_port
from tests.support.web import WebServer

LEASE = timedelta(seconds=30)
LIMITS = {"cooldown": "0s", "rate": "1000/1h", "attempts": 2}


async def claimed(one: Engine, owner: str = "dead") -> Run:
    """The one run, in the hands of an owner that nobody hears of again."""
    now = one.clock()
    async with one.database.write() as tx:
        return (await leases.claim(tx, Claimant(owner, now + LEASE), now, 1)).runs[0]


async def running(one: Engine) -> tuple[Run, Plan]:
    """The one run, admitted by that owner."""
    admitted = await advance(one.parts, await claimed(one))
    assert admitted is not None
    assert admitted.plan is not None
    return admitted, admitted.plan


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_step_without_a_result_is_repeated_only_where_that_is_harmless(
    tmp_path: Path, sink: WebServer, method: str
) -> None:
    """The dead owner may have sent it: a PUT is sent again, a POST ends the run for a person to look."""

    async def scenario() -> None:
        step = request(sink)
        step["with"]["method"] = method
        entry = poke(sink, steps=[step], limits=LIMITS)
        async with engine(sqlite(tmp_path), tmp_path, entry, working=False) as one:
            await one.fire()
            held, plan = await running(one)
            async with one.parts.turn() as turn:
                await steps.start(turn.tx, held, 0, plan.steps[0], turn.now)
            await _take_over(one)
            (row,) = await one.ended(count=1)
            if method == "PUT":
                assert (RunState.SUCCEEDED, 1) == (row.state, asked(sink))
            else:
                assert (RunState.INTERRUPTED, Reason.INTERRUPTED, 0) == (row.state, row.reason, asked(sink))

    run(scenario())


def test_no_further_try_follows_when_the_lease_is_over(tmp_path: Path) -> None:
    """A replica without its store does not hear that another one has ended the run; its own clock tells it."""

    async def scenario() -> None:
        nobody = WebServer(url=f"http://127.0.0.1:{free_port()}")
        entry = poke(nobody, steps=[request(nobody, method="POST", timeout="5m")], limits=LIMITS)
        async with engine(sqlite(tmp_path), tmp_path, entry, lease=timedelta(seconds=1)) as one:
            one.loops[2].cancel()  # nothing is renewed any more
            await one.fire()
            (row,) = await one.ended(count=1, seconds=30)
            assert (RunState.INTERRUPTED, Reason.INTERRUPTED) == (row.state, row.reason)

    run(scenario())


def test_a_recorded_failure_keeps_its_reason(tmp_path: Path, sink: WebServer) -> None:
    """A crash after an unknown outcome must not turn it into one that may be attempted again."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, limits=LIMITS), working=False) as one:
            await one.fire()
            held, plan = await running(one)
            async with one.parts.turn() as turn:
                await steps.start(turn.tx, held, 0, plan.steps[0], turn.now)
                outcome = StepOutcome("failed", 1, reason=Reason.OUTCOME_UNKNOWN, error="no answer came")
                await steps.finish(turn.tx, held, 0, turn.now, outcome)
            await _take_over(one)
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, Reason.OUTCOME_UNKNOWN, 0) == (row.state, row.reason, asked(sink))
            assert "no answer came" in row.message

    run(scenario())


def test_a_recorded_success_is_not_applied_again(tmp_path: Path, sink: WebServer) -> None:
    """The takeover goes on with the step after it."""

    async def scenario() -> None:
        entry = poke(sink, steps=[request(sink, "/first"), request(sink, "/second")])
        async with engine(sqlite(tmp_path), tmp_path, entry, working=False) as one:
            await one.fire()
            held, plan = await running(one)
            async with one.parts.turn() as turn:
                await steps.start(turn.tx, held, 0, plan.steps[0], turn.now)
                await steps.finish(turn.tx, held, 0, turn.now, StepOutcome("succeeded"))
            await _take_over(one)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, 0, 1) == (row.state, asked(sink, "/first"), asked(sink, "/second"))

    run(scenario())


def test_a_run_without_a_plan_is_never_admitted(tmp_path: Path, sink: WebServer) -> None:
    """An early refusal that has passed by the time it is written is no yes."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), working=False) as one:
            await one.fire()
            held = await claimed(one)
            assert await admit(one.parts, DecisionInput(held)) is None
            (row,) = await one.runs()
            assert (RunState.PENDING, None) == (row.state, row.admitted_at)

    run(scenario())


def test_who_lost_a_run_does_not_end_it(tmp_path: Path, sink: WebServer) -> None:
    """An error in the loser's hands says nothing about the run that another one works on."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), working=False) as one:
            await one.fire()
            loser = await claimed(one)
            one.forward(LEASE * 2)
            winner = await claimed(one, "winner")
            assert await one.worker._fail(loser, ZeroDivisionError()) is None
            (row,) = await one.runs()
            assert (RunState.PENDING, "winner", winner.lease_epoch) == (row.state, row.lease_owner, row.lease_epoch)

    run(scenario())


async def _take_over(one: Engine) -> None:
    """Let the lease of the dead run out, and work."""
    one.forward(LEASE * 2)
    one.loops.append(asyncio.create_task(one.worker.work_forever()))
