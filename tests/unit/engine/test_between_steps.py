"""Pauses and the ceiling that come between two calls of a run: nothing further begins, and then it goes on there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.engine import Row

from app.backends.connections import Connections
from app.domain.errors import ConflictError
from app.domain.obstacles import Hold
from app.domain.reasons import Reason
from app.domain.remediation import Mode
from app.domain.states import RunState
from app.engine.pipeline import advance
from app.engine.stages.between_steps import check_ceiling
from app.store.db.schema import message
from app.store.gates import breakers, pauses
from app.store.gates.breakers import Ended
from app.store.gates.pauses import Held
from app.store.ledger import approvals, leases, runs
from app.store.ledger.approvals import DecisionKind, HumanDecision
from app.store.ledger.leases import Claimant
from tests.support.aio import run
from tests.support.engine import Engine, engine, read, sqlite, until
from tests.support.entries import asked, poke, request
from tests.support.processes import free_port
from tests.support.web import WebServer

ALL = Held("all")
SUBJECTS = [ALL, Held("remediation", "poke"), Held("target", "none:poke/000000001354ebb1")]


def three(sink: WebServer, **params: Any) -> dict[str, Any]:
    """A remediation of three requests."""
    return poke(sink, steps=[request(sink, f"/{number}", **params) for number in (1, 2, 3)])


def counts(sink: WebServer) -> tuple[int, ...]:
    """How often each step was called."""
    return tuple(asked(sink, f"/{number}") for number in (1, 2, 3))


async def pause(one: Engine, held: Held = ALL, **ends: timedelta) -> None:
    """Put a pause, as the API does."""
    now = one.clock()
    until = now + ends["ends"] if ends else None
    async with one.database.write() as tx:
        await pauses.put(tx, held, Hold(held.scope, "ann", "hands off", until), now)


async def resume(one: Engine, held: Held = ALL) -> None:
    """Take it away."""
    async with one.database.write() as tx:
        await pauses.take(tx, held, "ann", "ann", one.clock())
    one.parts.work.set()


async def word(one: Engine, verb: DecisionKind, run_id: str) -> None:
    """What a person says."""
    async with one.database.write() as tx:
        await approvals.decide(tx, run_id, HumanDecision(verb, "ann"), one.clock())
    one.parts.work.set()


async def in_first_step(one: Engine, sink: WebServer) -> None:
    """Fire an alert, and return when its first step is being called."""
    sink.answering.clear()
    await one.fire()

    async def called() -> bool:
        return asked(sink, "/1") == 1

    await until(called, 10, "the first step")


def shown(row: Row[Any]) -> tuple[RunState, Reason]:
    """State and reason of a run."""
    return row.state, row.reason


@pytest.mark.parametrize("held", SUBJECTS, ids=lambda held: held.scope)
def test_a_pause_between_two_steps(tmp_path: Path, sink: WebServer, held: Held) -> None:
    """What is being applied finishes; the run says why it waits, keeps its target, and goes on where it stood."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, three(sink)) as one:
            await in_first_step(one, sink)
            if held.scope == "target":
                assert held.subject == (await one.runs())[0].target_key
            await pause(one, held)
            sink.answering.set()
            (row,) = await one.reached("deferred", count=1)
            assert (Reason.PAUSED, True, (1, 0, 0)) == (row.reason, row.holds_target, counts(sink))
            assert row.message.startswith("step 2 of 3 is not begun: ")
            assert "paused by ann: hands off" in row.message
            await resume(one, held)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, (1, 1, 1)) == (row.state, counts(sink))
            kinds = await one.kinds(row.id)
            assert 3 == kinds.count("step_started") == kinds.count("step_succeeded")

    run(scenario())


def test_a_pause_that_ends_by_itself(tmp_path: Path, sink: WebServer) -> None:
    """Nobody need say anything."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, three(sink)) as one:
            await in_first_step(one, sink)
            await pause(one, ends=timedelta(hours=1))
            sink.answering.set()
            await one.reached("deferred", count=1)
            one.forward(timedelta(minutes=61))
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, (1, 1, 1)) == (row.state, counts(sink))

    run(scenario())


def test_a_pause_between_two_tries(tmp_path: Path, sink: WebServer) -> None:
    """No further try is made, and what has had no effect gives its place back meanwhile."""

    async def scenario() -> None:
        sink.status, sink.headers = 503, {"Retry-After": "1"}
        async with engine(sqlite(tmp_path), tmp_path, three(sink)) as one:
            await in_first_step(one, sink)
            await pause(one)
            sink.answering.set()
            (row,) = await one.reached("deferred", count=1)
            assert (Reason.PAUSED, False, None) == (row.reason, row.holds_target, row.admitted_at)
            assert "step_left" in await one.kinds(row.id)
            sink.status, sink.headers = 200, {}
            await resume(one)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, (2, 1, 1)) == (row.state, counts(sink))

    run(scenario())


def test_a_pause_after_a_lost_answer(tmp_path: Path, sink: WebServer) -> None:
    """The try may have had its effect: the run keeps its step, its place and its target, and the alert's end too."""

    async def scenario() -> None:
        connections = Connections(timeout=timedelta(milliseconds=300))
        async with engine(sqlite(tmp_path), tmp_path, three(sink), connections=connections) as one:
            await in_first_step(one, sink)
            await pause(one)
            (row,) = await one.reached("deferred", count=1)
            assert (Reason.PAUSED, True) == (row.reason, row.holds_target)
            assert ["started"] == [step.state for step in await one.steps()]
            await one.resolve()
            sink.answering.set()
            await one.reached("deferred", count=1)
            await resume(one)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, (2, 1, 1)) == (row.state, counts(sink))

    run(scenario())


def test_a_pause_between_two_tries_of_what_must_not_be_repeated(tmp_path: Path) -> None:
    """Nothing was sent: its intent does not end the run."""

    async def scenario() -> None:
        nobody = WebServer(url=f"http://127.0.0.1:{free_port()}")
        entry = poke(nobody, steps=[request(nobody, method="POST", timeout="2m")])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            await until(one.steps, 10, "the first try")
            await pause(one)
            (row,) = await one.reached("deferred", count=1, seconds=20)
            assert (Reason.PAUSED, False, []) == (row.reason, row.holds_target, await one.steps())

    run(scenario())


def test_an_alert_that_resolves_in_the_pause(tmp_path: Path, sink: WebServer) -> None:
    """Ends a run that has begun nothing, and leaves one that stands half done to go on."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, three(sink)) as one:
            sink.status, sink.headers = 503, {"Retry-After": "1"}
            await in_first_step(one, sink)
            await pause(one)
            sink.answering.set()
            await one.reached("deferred", count=1)
            await one.resolve()
            (row,) = await one.ended(count=1)
            assert (RunState.CANCELLED, Reason.RESOLVED_BEFORE_START) == shown(row)
            sink.status, sink.headers = 200, {}
            await resume(one)
            await in_first_step_again(one, sink)
            await pause(one)
            sink.answering.set()
            await one.reached("deferred", "cancelled", count=2)
            await one.resolve()
            await one.reached("deferred", "cancelled", count=2)
            await resume(one)
            await one.ended(count=2)
            assert (2, 1, 1) == counts(sink)

    run(scenario())


async def in_first_step_again(one: Engine, sink: WebServer) -> None:
    """The same, for the second run."""
    sink.answering.clear()
    one.forward(timedelta(hours=1))
    await one.fire()

    async def called() -> bool:
        return asked(sink, "/1") == 2

    await until(called, 10, "the first step of the second run")


@pytest.mark.parametrize("ceiling", [Mode.OBSERVE, Mode.APPROVE])
@pytest.mark.parametrize("verb", [DecisionKind.APPROVE, DecisionKind.CANCEL, DecisionKind.REJECT])
def test_a_ceiling_that_comes_down_between_two_steps(
    tmp_path: Path, sink: WebServer, ceiling: Mode, verb: DecisionKind
) -> None:
    """What stands half done waits for a person for as long as it takes, and for nothing else."""

    async def scenario() -> None:
        await left_after_first_step(tmp_path, sink)
        under = {"owner": "second", "ceiling": ceiling, "channel": "ops"}
        async with engine(sqlite(tmp_path), tmp_path, three(sink), **under) as two:
            (row,) = await two.reached("awaiting_approval", count=1)
            await is_told_how_to_go_on(two, row)
            reason = Reason.MODE_OBSERVE if ceiling is Mode.OBSERVE else Reason.APPROVAL_REQUIRED
            assert (reason, True, None) == (row.reason, row.holds_target, row.approved_by)
            assert "step 2 of 3 is not begun" in row.message
            two.forward(timedelta(hours=5))
            await two.resolve()
            (row,) = await two.reached("awaiting_approval", count=1)
            if ceiling is Mode.OBSERVE:
                async with two.database.read() as tx:
                    found = await runs.get(tx, row.id)
                with pytest.raises(ConflictError, match="without"):
                    check_ceiling(two.parts, found)
        ceiling_now = Mode.AUTO if ceiling is Mode.OBSERVE else ceiling
        async with engine(sqlite(tmp_path), tmp_path, three(sink), owner="third", ceiling=ceiling_now) as three_:
            (row,) = await three_.reached("awaiting_approval", count=1)
            assert (1, 0, 0) == counts(sink)
            await word(three_, verb, row.id)
            (row,) = await three_.ended(count=1)
        done = (1, 1, 1) if verb is DecisionKind.APPROVE else (1, 0, 0)
        state = {DecisionKind.APPROVE: "succeeded", DecisionKind.CANCEL: "cancelled", DecisionKind.REJECT: "denied"}[
            verb
        ]
        assert (state, done) == (row.state, counts(sink))

    run(scenario())


async def is_told_how_to_go_on(one: Engine, row: Row[Any]) -> None:
    """The message about a run that stands half done has a command for each answer, also without `external_url`."""
    async with one.database.read() as tx:
        (told,) = await tx.execute(select(message.c.title, message.c.body))
    assert "Stands half done: poke" == told.title
    for verb in ("approve", "reject", "cancel"):
        assert f'$REMEDIATOR_URL/remediations/{row.id}/{verb}"' in told.body


async def left_after_first_step(tmp_path: Path, sink: WebServer) -> None:
    """A replica that is stopped in the first of three steps, which finishes."""
    async with engine(sqlite(tmp_path), tmp_path, three(sink)) as one:
        await in_first_step(one, sink)
        one.loops[1].cancel()  # the service stops to claim before it drains
        sink.answering.set()
        one.parts.draining.set()
        await one.worker.drain(10)
    assert (1, 0, 0) == counts(sink)


def test_what_had_begun_nothing_is_observed(tmp_path: Path, sink: WebServer) -> None:
    """Admitted under another ceiling, and called under this one: what would have been done is shown."""

    async def scenario() -> None:
        entry: Mapping[str, Any] = three(sink)
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await pause(one)
            await one.fire()
            await one.reached("deferred", count=1)
        async with engine(sqlite(tmp_path), tmp_path, entry, owner="second", ceiling=Mode.OBSERVE) as two:
            await resume(two)
            (row,) = await two.ended(count=1)
            assert (RunState.OBSERVED, Reason.MODE_OBSERVE) == shown(row)
        assert (0, 0, 0) == counts(sink)

    run(scenario())


def test_a_freeze_before_the_first_call_of_what_was_taken_over(tmp_path: Path, sink: WebServer) -> None:
    """It was let through by a replica that died before it began: the freeze of now holds it like a new one."""

    async def scenario() -> None:
        entry: Mapping[str, Any] = three(sink)
        async with engine(sqlite(tmp_path), tmp_path, entry, working=False) as one:
            await one.fire()
            now = one.clock()
            async with one.database.write() as tx:
                claimed = await leases.claim(tx, Claimant("dead", now + timedelta(seconds=30)), now, 1)
            admitted = await advance(one.parts, claimed.runs[0])
            assert admitted is not None
            assert admitted.state is RunState.RUNNING
            ends = (now + timedelta(hours=1)).isoformat()
            freeze = {"name": "fair", "summary": "The fair.", "begins": now.isoformat(), "ends": ends}
            one.catalog.put(entry, freezes=[freeze])
            waits = await advance(one.parts, admitted)
            assert waits is not None
            assert (RunState.DEFERRED, Reason.FROZEN, False) == (waits.state, waits.reason, waits.holds_target)
            assert (0, 0, 0) == counts(sink)

    run(scenario())


def test_a_trial_that_a_pause_kept_from_beginning(tmp_path: Path, sink: WebServer) -> None:
    """Another run may be the trial: the pause may be on this target alone, and without an end."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, three(sink), working=False) as one:
            await one.fire()
            now = one.clock()
            async with one.database.write() as tx:
                limits = read(limits={"breaker": 1, "breaker_pause": "1ms"}).limits
                await breakers.record(tx, Ended("poke", "before", helped=False), limits, now - timedelta(hours=1))
                claimed = await leases.claim(tx, Claimant("dead", now + timedelta(seconds=30)), now, 1)
            admitted = await advance(one.parts, claimed.runs[0])
            assert admitted is not None
            async with one.database.read() as tx:
                assert admitted.id == (await breakers.get(tx, "poke")).trial
            await pause(one, SUBJECTS[2])
            await advance(one.parts, admitted)
            (row,) = await one.runs()
            assert (RunState.DEFERRED, Reason.PAUSED) == shown(row)
            async with one.database.read() as tx:
                found = await breakers.get(tx, "poke")
            assert (None, True) == (found.trial, found.opened_at is not None)

    run(scenario())
