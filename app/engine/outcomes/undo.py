"""Takes runs back: an undo because a person or a failed verification says so, a revert after the alert.

Both are runs of their own that pass the same stages: recorded here, planned here from the recorded steps of the undone
run (the last one first), guarded by the same chain, and executed by the actions' `undo`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app.backends.action import Context
from app.backends.actions import actions
from app.domain.durations import format_duration
from app.domain.errors import ConflictError, NotFoundError, PermanentError, TransientError
from app.domain.ids import new_id
from app.domain.plans import Plan, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.domain.tones import Tone
from app.domain.wording import on_target, one_line
from app.engine.context import EngineContext, Turn
from app.engine.outcomes.notices import Notice, tell
from app.store.audit.chain import ENGINE, Entry
from app.store.db.connection import AsyncConnection
from app.store.db.notify import announce
from app.store.ledger import runs, undos
from app.store.ledger.runs import Run

_SAID = {Purpose.UNDO: "undo", Purpose.REVERT: "revert"}
_DONE = {Purpose.UNDO: "undone", Purpose.REVERT: "reverted"}
# The next alert is decided anew, or a person has said so: nothing to tell.
_NO_NEWS = {RunState.SUCCEEDED, RunState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Order:
    """An order to take a run back: the run, the earliest time, and the reason."""

    undone: Run
    purpose: Purpose
    not_before: datetime
    why: Entry
    holds_target: bool = False  # handed over by the run that has just failed, so that nothing comes in between


async def record(tx: AsyncConnection, order: Order, now: datetime) -> Run:
    """Record the run that takes another one back."""
    undone = order.undone
    new = replace(
        undone,
        id=new_id(now),
        state=RunState.PENDING,
        reason=None,
        message=order.why.message,
        attempt=1,
        rung=0,
        received_at=now,
        plan=None,
        holds_target=order.holds_target,
        setback=None,
        approved_by=None,
        created_at=now,
        updated_at=now,
        not_before=order.not_before,
        admitted_at=None,
        started_at=None,
        settle_until=order.not_before if order.purpose is Purpose.REVERT else None,
        lease_owner=None,
        lease_epoch=0,
        tell_at=None,
        unreachable_since=None,
        purpose=order.purpose,
        undoes=undone.id,
    )
    await runs.create(tx, [new])
    await undos.copy_links(tx, undone.id, new.id)
    if order.why.actor != ENGINE:
        await runs.note(tx, new, now, "asked_for", order.why)
    said = replace(order.why, message=f"run {new.id} takes it back: {order.why.message}", data={"run": new.id})
    await runs.note(tx, undone, now, f"{_SAID[order.purpose]}_recorded", said)
    await announce(tx)
    return new


async def ask(tx: AsyncConnection, run_id: str, entry: Entry, now: datetime) -> Run:
    """Record an undo that a person asks for; raises NotFoundError, or ConflictError that says why it cannot be."""
    undone = await undos.keep(tx, run_id)
    if undone is None:
        survivor = await runs.folded_into(tx, run_id)
        if survivor is not None:
            raise ConflictError(f"run {run_id} joined run {survivor}; undo that one")
        raise NotFoundError(f"there is no run {run_id}")
    if not undone.state.is_final:
        raise ConflictError(f"run {run_id} is {undone.state}; only a run that has ended can be undone")
    if undone.purpose is not Purpose.REMEDY:
        raise ConflictError(f"run {run_id} takes back run {undone.undoes} itself; the alert's next run does it again")
    steps = await undos.applied(tx, run_id)
    if not steps:
        raise ConflictError(f"run {run_id} changed nothing: there is nothing to undo")
    if not _undoable(steps):
        names = ", ".join(sorted({step.action for step in steps}))
        raise ConflictError(f"the changes of run {run_id} cannot be undone ({names})")
    other = await undos.taken_back_by(tx, undone)
    if other is not None:
        by, state = other
        told = "is taken back already" if state is RunState.SUCCEEDED else f"is about to be taken back ({state})"
        raise ConflictError(f"run {run_id} {told}: see run {by}")
    return await record(tx, Order(undone, Purpose.UNDO, now, entry), now)


async def after(turn: Turn, closed: Run, *, firing: bool) -> None:
    """Do the consequences of a run's end, in its closing transaction: an undo, a revert, or a word about one."""
    if closed.purpose is not Purpose.REMEDY:
        await _tell_end(turn, closed)
        return
    if _is_taken_back(closed, firing=firing):
        steps = await undos.applied(turn.tx, closed.id)
        if _undoable(steps):
            why = Entry(f"run {closed.id} failed, and its remediation says undo_on_failure")
            await record(turn.tx, Order(closed, Purpose.UNDO, turn.now, why, holds_target=True), turn.now)
            return
    if not firing:
        await give_back_after(turn.tx, turn.now, closed)


def _is_taken_back(closed: Run, *, firing: bool) -> bool:
    """Say whether a run's changes are to be undone; not once its alert has resolved, since some may have helped."""
    return (
        firing
        and closed.state is RunState.FAILED
        and closed.admitted_at is not None
        and closed.remediation.undo_on_failure
    )


async def give_back(tx: AsyncConnection, now: datetime, ended_episodes: Sequence[str]) -> None:
    """Record reverts for changes that were lent to alerts that have just resolved."""
    for remediation, target_key in await undos.borrowers(tx, ended_episodes):
        await give_back_to(tx, now, remediation, target_key)


async def give_back_after(tx: AsyncConnection, now: datetime, closed: Run) -> None:
    """Record a revert of changes whose alerts are over, and which waited for this run to end."""
    if closed.purpose is Purpose.REMEDY and closed.target_key is not None:
        await give_back_to(tx, now, closed.remediation.name, closed.target_key)


async def give_back_to(tx: AsyncConnection, now: datetime, remediation: str, target_key: str) -> None:
    """Record a revert of the changes lent on a target, unless they are still needed."""
    lent = [one for one, _ in await _lent(tx, remediation, target_key)]
    if not lent:
        return
    for one in (lent[-1], lent[0]):  # of two transactions that see the same end, one goes on
        await undos.keep(tx, one.id)
    if await undos.needed(tx, remediation, target_key, [one.id for one in lent]):
        return
    pause = lent[0].remediation.revert_after
    if await undos.put_off(tx, now, (remediation, target_key), now + pause):
        return
    why = Entry(f"the alert resolved; the borrowed change is given back after {format_duration(pause)} without it")
    await record(tx, Order(lent[0], Purpose.REVERT, now + pause, why), now)


async def wait(parts: EngineContext, run: Run) -> Run | None:
    """Put a revert off while its alert has not stayed away for long enough; None when it may go on."""
    if run.purpose is not Purpose.REVERT or run.settle_until is None or parts.clock() >= run.settle_until:
        return None
    async with parts.turn() as turn:
        return await runs.postpone(turn.tx, run, run.settle_until)


async def plan(parts: EngineContext, run: Run) -> Plan:
    """Plan the steps that take the undone run back; raises PermanentError, or TransientError."""
    async with parts.database.read() as tx:
        undone = await runs.get(tx, run.undoes or "")
        if undone is None or undone.plan is None:
            raise PermanentError(f"run {run.undoes} is no longer recorded", reason=Reason.NOTHING_TO_UNDO)
        if run.purpose is Purpose.REVERT:
            lent = await _lent(tx, undone.remediation.name, undone.target_key or "")
        else:
            lent = await _with_steps(tx, [undone])
    if not lent:
        message = f"nothing that run {run.undoes} did is left to be taken back"
        raise PermanentError(message, reason=Reason.NOTHING_TO_UNDO)
    target = undone.plan.target
    context = Context(parts.clients, parts.policy.scope, run.id, target, parts.clock())
    try:
        async with asyncio.timeout(parts.policy.plan_timeout.total_seconds()):
            planned = [await actions()[step.action].plan_undo(context, step) for _, steps in lent for step in steps]
    except TimeoutError as error:
        raise TransientError(f"planning took longer than {format_duration(parts.policy.plan_timeout)}") from error
    return Plan(rung=0, target=target, steps=tuple(planned), undoes=tuple(one.id for one, _ in lent))


async def _lent(tx: AsyncConnection, remediation: str, target_key: str) -> list[tuple[Run, list[PlannedStep]]]:
    return await _with_steps(tx, await undos.borrowed(tx, remediation, target_key))


async def _with_steps(tx: AsyncConnection, undone: Sequence[Run]) -> list[tuple[Run, list[PlannedStep]]]:
    """These runs with their steps that can be undone, the last one first; without the runs that have none."""
    found = [(one, _undoable(await undos.applied(tx, one.id))) for one in undone]
    return [(one, steps) for one, steps in found if steps]


def _undoable(steps: Sequence[PlannedStep]) -> list[PlannedStep]:
    known = actions()
    return [step for step in steps if step.action in known and known[step.action].can_undo]


async def _tell_end(turn: Turn, closed: Run) -> None:
    """Note on the undone run the result of taking it back, and tell people when it was not done."""
    done = _DONE[closed.purpose]
    well = closed.state is RunState.SUCCEEDED
    for run_id in closed.plan.undoes if closed.plan is not None else (closed.undoes or "",):
        undone = await undos.keep(turn.tx, run_id)
        if undone is not None:
            entry = Entry(f"run {closed.id}: {closed.message}", closed.reason, data={"run": closed.id})
            await runs.note(turn.tx, undone, turn.now, done if well else f"not_{done}", entry)
    if closed.state not in _NO_NEWS:
        title = f"Not {done}: {closed.remediation.name}{on_target(closed.target_key)}"
        why = one_line(closed.message, 2000)
        body = f"Run {closed.id} was to take back run {closed.undoes} and is {closed.state}: {why}"
        await tell(turn, closed.remediation, Notice(f"undo:{closed.id}", title, body, closed.id, Tone.FAILURE))
