"""Whatever happens to a run, wherever it stands: the engine has an answer, and what has helped is not taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import Row

from app.backends.action import Context
from app.domain.errors import ConflictError, LeaseLostError, PermanentError, TransientError
from app.domain.obstacles import Hold
from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Purpose
from app.domain.states import RunState, may_become
from app.engine.context import EngineContext
from app.engine.pipeline import advance
from app.engine.stages.closing import escalate_or_fail
from app.engine.worker import Worker
from app.store.audit.chain import Entry
from app.store.db.schema import event, message, metadata, run
from app.store.gates import breakers, pauses
from app.store.gates.pauses import Held
from app.store.ledger import approvals, leases, runs
from app.store.ledger.approvals import DecisionKind, HumanDecision
from app.store.ledger.leases import Claimant
from tests.support.aio import run as run_loop
from tests.support.dial import Dial, Turn, TurnParams, dial, turn, turns
from tests.support.engine import Engine, engine, sqlite

__all__ = ["dial"]
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LEASE = timedelta(seconds=30)
HIDDEN: set[str] = set()  # "gone" or "away": what planning finds of the target


@pytest.fixture(autouse=True)
def _hiding(monkeypatch: pytest.MonkeyPatch) -> None:
    HIDDEN.clear()
    plan = Turn.plan

    async def hiding(self: Turn, context: Context, params: TurnParams) -> PlannedStep:
        if "gone" in HIDDEN:
            raise PermanentError("there is no such dial", reason=Reason.TARGET_NOT_FOUND)
        if "away" in HIDDEN:
            raise TransientError("the dial does not answer")
        return await plan(self, context, params)

    monkeypatch.setattr(Turn, "plan", hiding)


@dataclass
class Case:
    """One run, moved by hand."""

    one: Engine
    parts: EngineContext

    async def to(self, state: RunState, rung: int) -> None:
        """Take the run as far as this."""
        for _ in range(20):
            held = await self.claim()
            while held is not None and held.lease_owner is not None and (held.state, held.rung) != (state, rung):
                held = await self._stage(held)
            await self._release()
            row = (await self.one.runs())[0]
            if (row.state, row.rung) == (state, rung):
                return
            if not row.active:
                break
            self.one.clock.ahead += 6 * MINUTE
        raise AssertionError(f"the run is {row.state} at rung {row.rung}, and not {state} at rung {rung}")

    async def rest(self) -> None:
        """Do all that is due, for two days."""
        for wait in (timedelta(), MINUTE, 6 * MINUTE, 6 * MINUTE, 2 * HOUR, 2 * DAY):
            self.one.clock.ahead += wait
            for _ in range(30):
                held = await self.claim()
                if held is None:
                    break
                while held is not None and held.lease_owner is not None:
                    held = await self._stage(held)
                await self._release()

    async def claim(self) -> runs.Run | None:
        now = self.one.clock()
        async with self.parts.database.write() as tx:
            found = (await leases.claim(tx, Claimant(self.parts.owner, now + LEASE), now, 1)).runs
        return found[0] if found else None

    async def _release(self) -> None:
        async with self.parts.database.write() as tx:
            await leases.release_owned(tx, self.parts.owner)

    async def _stage(self, held: runs.Run) -> runs.Run | None:
        """As the worker does."""
        try:
            return await advance(self.parts, held)
        except LeaseLostError:
            return None
        except Exception as error:  # noqa: BLE001 - as the worker does; the case looks for it
            return await Worker(self.parts)._fail(held, error)


@asynccontextmanager
async def cases(folder: Path, dial: Dial, entry: dict[str, Any]) -> AsyncIterator[Callable[[], Awaitable[Case]]]:
    """Makes a new case as often as asked: an empty store, a dial at 3, and one firing alert."""
    async with engine(sqlite(folder), folder, entry, working=False, recheck=MINUTE) as one:

        async def new() -> Case:
            async with one.database.write() as tx:
                for table in reversed(metadata.sorted_tables):
                    await tx.execute(table.delete())
            HIDDEN.clear()
            dial.file.write_text("3\n")
            one.catalog.put(entry)
            await one.fire()
            return Case(one, one.parts)

        yield new


def ladder(dial: Dial, **fields: Any) -> dict[str, Any]:
    """Turns from 3 to 5; when the alert stays, to 8 after a person has said so; all of it is undone on failure."""
    rungs = [{"steps": [turn(dial, to=8, dangerous=True)], "settle": "5m"}]
    return turns(dial, **({"settle": "5m", "escalate": rungs, "undo_on_failure": True} | fields))


async def deferred(one: Case, rung: int) -> None:
    """Paused before this rung is decided."""
    await one.to(RunState.PENDING, rung)
    await pause(one)
    await one.to(RunState.DEFERRED, rung)
    async with one.parts.database.write() as tx:
        await pauses.take(tx, Held("all"), "ann", "ann", one.one.clock())


async def unplannable(one: Case, state: RunState) -> None:
    """At the second rung, since the first could not be planned: nothing was done."""
    HIDDEN.add("gone")
    await one.to(RunState.PENDING, 1)
    HIDDEN.clear()
    if state is RunState.DEFERRED:
        await deferred(one, 1)
    else:
        await one.to(state, 1)


async def approved(one: Case, state: RunState) -> None:
    """At the second rung, which a person has approved."""
    await one.to(RunState.AWAITING_APPROVAL, 1)
    await say(one, DecisionKind.APPROVE)
    await one.to(state, 1)


S = RunState
STANDS: dict[str, Callable[[Case], Awaitable[None]]] = {
    "pending": lambda one: one.to(S.PENDING, 0),
    "deferred": lambda one: deferred(one, 0),
    "running": lambda one: one.to(S.RUNNING, 0),
    "verifying": lambda one: one.to(S.VERIFYING, 0),
    "pending at the second rung": lambda one: one.to(S.PENDING, 1),
    "deferred at the second rung": lambda one: deferred(one, 1),
    "asked at the second rung": lambda one: one.to(S.AWAITING_APPROVAL, 1),
    "approved at the second rung": lambda one: approved(one, S.PENDING),
    "running at the second rung": lambda one: approved(one, S.RUNNING),
    "verifying at the second rung": lambda one: approved(one, S.VERIFYING),
    "unplannable, pending": lambda one: unplannable(one, S.PENDING),
    "unplannable, deferred": lambda one: unplannable(one, S.DEFERRED),
    "unplannable, asked": lambda one: unplannable(one, S.AWAITING_APPROVAL),
}


async def say(one: Case, verb: DecisionKind) -> None:
    """What the API does; a word that does not fit is refused."""
    (first, *_) = await one.one.runs()
    try:
        async with one.parts.database.write() as tx:
            await approvals.decide(tx, first.id, HumanDecision(verb, "ann"), one.one.clock())
    except ConflictError:
        return


async def pause(one: Case) -> None:
    """Everything, until somebody ends it."""
    async with one.parts.database.write() as tx:
        await pauses.put(tx, Held("all"), Hold("all", "ann", "because", None), one.one.clock())


async def expire(one: Case) -> None:
    """Nobody answers for long."""
    one.one.clock.ahead += 2 * HOUR


async def remove(one: Case) -> None:
    """The catalog has the entry no longer."""
    one.one.catalog.put()


async def observe(one: Case) -> None:
    """The service is started again with a lower ceiling."""
    one.parts = replace(one.parts, policy=replace(one.parts.policy, ceiling=Mode.OBSERVE))


async def unreadable(one: Case) -> None:
    """Another release has written what this one cannot read, and has been away for long."""
    async with one.parts.database.write() as tx:
        await tx.execute(update(run).values(spec={"nonsense": True}))
    one.one.clock.ahead += 2 * HOUR


def hide(how: str) -> Callable[[Case], Awaitable[None]]:
    """The target is gone, or does not answer."""

    async def hidden(_: Case) -> None:
        HIDDEN.add(how)

    return hidden


EVENTS: dict[str, Callable[[Case], Awaitable[None]]] = {
    "approve": lambda one: say(one, DecisionKind.APPROVE),
    "reject": lambda one: say(one, DecisionKind.REJECT),
    "cancel": lambda one: say(one, DecisionKind.CANCEL),
    "drop": lambda one: say(one, DecisionKind.DROP),
    "expire": expire,
    "remove": remove,
    "observe": observe,
    "pause": pause,
    "gone": hide("gone"),
    "away": hide("away"),
    "unreadable": unreadable,
}


async def outcome(one: Case) -> list[Row[Any]]:
    """Every run, none of which the engine itself has failed on; each went only where the table lets it go."""
    async with one.parts.database.read() as tx:
        told = list(await tx.execute(select(event.c.run_id, event.c.state, event.c.message).order_by(event.c.id)))
    assert [] == [row.message for row in told if row.message.startswith("unexpected")]
    for run_id in {row.run_id for row in told}:
        states = [row.state for row in told if row.run_id == run_id and row.state]
        for before, after in pairwise(states):
            assert before == after or may_become(RunState(before), RunState(after)), (before, after)
    return await one.one.runs()


@pytest.mark.parametrize("stand", STANDS)
def test_the_alert_stays(tmp_path: Path, dial: Dial, stand: str) -> None:
    """Whatever happens then, the run ends, or waits and says why."""

    async def scenario() -> None:
        async with cases(tmp_path, dial, ladder(dial)) as new:
            for happens, event_of in EVENTS.items():
                one = await new()
                await STANDS[stand](one)
                await event_of(one)
                await one.rest()
                for row in await outcome(one):
                    assert not row.active or row.state == RunState.DEFERRED, (happens, row.state)
                    assert row.reason is not None, happens

    run_loop(scenario())


@pytest.mark.parametrize("stand", STANDS)
def test_the_alert_resolves(tmp_path: Path, dial: Dial, stand: str) -> None:
    """Whatever happens before: what was done stays done, since the alert has resolved, and nothing more is done."""

    async def scenario() -> None:
        async with cases(tmp_path, dial, ladder(dial)) as new:
            for happens in ["nothing", *EVENTS]:
                one = await new()
                await STANDS[stand](one)
                stood = dial.value
                if happens != "nothing":
                    await EVENTS[happens](one)
                one.one.clock.ahead += MINUTE
                await one.one.resolve()
                await one.rest()
                found = await outcome(one)
                assert [] == [row.id for row in found if row.active or row.purpose != Purpose.REMEDY], happens
                applies = stand.startswith("running")  # what is being applied is finished
                assert applies or dial.value == stood, happens
                (first, *_) = found
                if happens == "nothing" and first.admitted_at is not None:
                    assert (RunState.SUCCEEDED, Reason.VERIFIED, True) == (first.state, first.reason, first.effective)

    run_loop(scenario())


@pytest.mark.parametrize(
    ("stand", "reason", "ends"),
    [
        ("verifying", Reason.ALERT_STILL_FIRING, RunState.SUCCEEDED),
        ("pending at the second rung", Reason.TARGET_NOT_FOUND, RunState.SUCCEEDED),
        ("deferred at the second rung", Reason.TEMPLATE_FAILED, RunState.SUCCEEDED),
        ("unplannable, pending", Reason.TARGET_NOT_FOUND, RunState.CANCELLED),
        ("verifying at the second rung", Reason.CHECK_FAILED, RunState.FAILED),
        ("running at the second rung", Reason.ACTION_FAILED, RunState.FAILED),
    ],
)
def test_the_alert_resolves_just_before_a_rung_is_given_up(
    tmp_path: Path, dial: Dial, stand: str, reason: Reason, ends: RunState
) -> None:
    """The look that found it firing is over. A rung that was not begun says nothing about those before it."""

    async def scenario() -> None:
        async with cases(tmp_path, dial, ladder(dial)) as new:
            one = await new()
            await STANDS[stand](one)
            await one.one.resolve()
            held = await one.claim()
            assert held is not None
            await escalate_or_fail(one.parts, held, Entry("it did not help", reason))
            (row,) = await one.one.runs()  # and so no undo
            assert ends == row.state

    run_loop(scenario())


def test_a_rung_that_cannot_begin_takes_nothing_from_the_one_before(tmp_path: Path, dial: Dial) -> None:
    """The first was verified and the alert was slow, the second cannot be planned, the third asks: it has helped."""

    async def scenario() -> None:
        third = {"steps": [turn(dial, to=9, dangerous=True)]}
        entry = ladder(dial, escalate=[*ladder(dial)["escalate"], third])
        async with cases(tmp_path, dial, entry) as new:
            one = await new()
            await one.to(RunState.PENDING, 1)
            HIDDEN.add("gone")
            await one.to(RunState.PENDING, 2)
            HIDDEN.clear()
            await one.to(RunState.AWAITING_APPROVAL, 2)
            (row,) = await one.one.runs()
            assert "rung 2 could not begin: there is no such dial" in row.setback["message"]
            await one.one.resolve()
            await one.rest()
            (row,) = await outcome(one)
            assert (RunState.SUCCEEDED, Reason.VERIFIED, 5) == (row.state, row.reason, dial.value)

    run_loop(scenario())


def test_a_fix_that_helped_does_not_count_against_its_remediation(tmp_path: Path, dial: Dial) -> None:
    """Nor is the question left without an answer."""

    async def scenario() -> None:
        async with cases(tmp_path, dial, ladder(dial, channel="ops")) as new:
            one = await new()
            await one.to(RunState.AWAITING_APPROVAL, 1)
            await one.one.resolve()
            await one.rest()
            async with one.parts.database.read() as tx:
                assert {} == await breakers.get_all(tx)
                titles = list((await tx.execute(select(message.c.title).order_by(message.c.id))).scalars())
            assert ["Approve? turn", "Done: turn"] == titles

    run_loop(scenario())
