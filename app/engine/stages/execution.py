"""Applies the planned steps in order, or takes them back. The intent is committed before each call, its result after.

A replica that drains finishes its calls and leaves the rest, further tries of the same step too, to another one.
"""

from __future__ import annotations

import structlog

from app.backends.actions import actions
from app.domain.plans import Plan, PlannedStep
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.context import EngineContext, Turn
from app.engine.stages.calling import Call, DrainingError, HaltedError, begin, carry_out, wait_for_store
from app.engine.stages.closing import close, escalate_or_fail
from app.store.audit.chain import Entry
from app.store.db.notify import announce
from app.store.ledger import runs, steps
from app.store.ledger.runs import Run
from app.store.ledger.steps import StepOutcome, StepRecord

log = structlog.get_logger()


async def apply(parts: EngineContext, run: Run, plan: Plan) -> Run:
    """Apply the steps that are left; ends in verifying, in the next rung, or in a final state."""
    objection = parts.policy.scope.plan_objection(plan)
    if objection is not None:  # it was in scope when it was planned; the configuration has changed, or the store was
        return await escalate_or_fail(parts, run, Entry(objection, Reason.OUT_OF_SCOPE))
    try:
        return await _apply(parts, run, plan)
    except HaltedError as halted:
        return halted.run


async def _apply(parts: EngineContext, run: Run, plan: Plan) -> Run:
    async with parts.database.read() as tx:
        recorded = {record.position: record for record in await steps.of_rung(tx, run.id, run.rung)}
    for position, step in enumerate(plan.steps):
        if parts.draining.is_set():
            return await _leave(parts, run)
        try:
            outcome, run = await _step(parts, run, plan, position, recorded.get(position))
        except DrainingError:
            forgets = not actions()[step.action].can_repeat(step)
            return await _leave(parts, run, position, forgets=forgets)
        if outcome.state in {"interrupted", "failed"}:
            return await _stopped(parts, run, position, step, outcome)
    if run.state is RunState.VERIFYING:
        return run
    async with parts.turn() as turn:
        return await _applied(turn, run, plan)


async def _applied(turn: Turn, run: Run, plan: Plan) -> Run:
    message = "applied" if plan.changes else "nothing to change"
    return await runs.move(turn.tx, run, RunState.VERIFYING, turn.now, Entry(message))


async def _leave(parts: EngineContext, run: Run, position: int | None = None, *, forgets: bool = False) -> Run:
    """Give the run back as it is; the step at `position` goes on elsewhere.

    A step that must not be repeated is begun again, since no try of it has happened; its intent would end the run.
    """
    async with parts.turn() as turn:
        if position is not None:
            why = "the replica that tried it stops; another one goes on"
            await steps.leave(turn.tx, run, position, turn.now, why)
            if forgets:
                await steps.forget(turn.tx, run, position)
        await announce(turn.tx)
        return await runs.postpone(turn.tx, run, turn.now)


async def _step(
    parts: EngineContext, run: Run, plan: Plan, position: int, record: StepRecord | None
) -> tuple[StepOutcome, Run]:
    """Do one step, from its intent to its result; skip a step that an earlier owner of the run has finished."""
    if record is not None and record.state != "started":
        return StepOutcome(record.state, record.tries, reason=record.reason, error=record.error), run
    call = Call(parts, run, plan, position, is_known=record is not None)
    step = call.step
    if record is not None and not actions()[step.action].can_repeat(step):
        error = "the replica that applied it died before the result was known, and it must not be repeated"
        outcome = StepOutcome("interrupted", record.tries, reason=Reason.INTERRUPTED, error=error)
    elif not step.changes:
        outcome = StepOutcome("skipped", tries=0, result={"already": "as planned"})
        async with parts.turn() as turn:
            await steps.start(turn.tx, run, position, step, turn.now)
    else:
        await begin(call)
        outcome = await carry_out(call)
    run = await _finish(parts, run, plan, position, outcome)
    parts.metrics.actions.labels(step.action, outcome.state).inc()
    log.info("step ended", action=step.action, state=outcome.state, reason=outcome.reason, error=outcome.error)
    return outcome, run


async def _finish(parts: EngineContext, run: Run, plan: Plan, position: int, outcome: StepOutcome) -> Run:
    """Write the result, and after the last step its consequences; wait for the store when it is away.

    The effect is known only here.

    When the lease runs out meanwhile and another replica is first, the write raises LeaseLostError and changes nothing.
    """

    async def write() -> Run:
        async with parts.turn() as turn:
            await steps.finish(turn.tx, run, position, turn.now, outcome)
            if position + 1 == len(plan.steps) and outcome.state in {"succeeded", "skipped"}:
                return await _applied(turn, run, plan)
            return run

    return await wait_for_store(write)


async def _stopped(parts: EngineContext, run: Run, position: int, step: PlannedStep, outcome: StepOutcome) -> Run:
    if outcome.state == "failed":
        where = f"step {position + 1} ({step.action})"
        return await escalate_or_fail(parts, run, Entry(f"{where}: {outcome.error}", outcome.reason))
    async with parts.turn() as turn:
        entry = Entry(f"step {position + 1}: {outcome.error}", outcome.reason)
        return await close(turn, run, RunState.INTERRUPTED, entry)
