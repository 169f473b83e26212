"""One alert's way through the engine, on one screen. Read this first.

    receive → record   api.webhook, store.ledger.inbox    the notification is committed, Alertmanager gets its 202
    take in → match    stages.intake                      episodes, a pending run for each match
    plan               stages.planning                    the exact target, its state before, the state to reach
                       outcomes.undo                      (for a run that takes another one back: its steps, reversed)
    guard              stages.admission, guards.chain     allow, defer, deny, observe, or ask a person
    apply              stages.execution, stages.calling   each step: intent committed, called, result committed
                       stages.between_steps               (before each call: pauses and the ceiling, once more)
    verify             stages.verification                checks, then whether the alert resolves
    close              stages.closing                     final state, next rung, next attempt

Every stage takes a run under a lease and returns it in its next state, so that a replica that takes a run over after
a crash goes on from the ledger's state. A stage that lost the lease raises LeaseLostError and has written nothing.
"""

from __future__ import annotations

from dataclasses import replace

from app.catalog.templates import TemplateContext
from app.domain.decisions import Decision, Verdict
from app.domain.durations import format_duration
from app.domain.errors import AppError, TransientError
from app.domain.plans import Plan
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.engine.context import EngineContext
from app.engine.outcomes import undo
from app.engine.stages.admission import DecisionInput, admit, defer, refuse_early
from app.engine.stages.between_steps import go_on, stands_at
from app.engine.stages.closing import close, escalate, escalate_or_fail, still_wanted, unwanted
from app.engine.stages.execution import apply
from app.engine.stages.external_facts import look_outside
from app.engine.stages.planning import Planner, Trigger
from app.engine.stages.refresh import follow_catalog, speak_for
from app.engine.stages.verification import verify
from app.store.audit.chain import Entry
from app.store.db.pace import work_without_pause
from app.store.ledger import runs
from app.store.ledger.runs import Run

_DENIALS = {Reason.OUT_OF_SCOPE: "scope", Reason.PRECONDITION_FAILED: "when"}  # and the guard's name for each


async def advance(parts: EngineContext, run: Run) -> Run | None:
    """Take a run one stage further; None when it was folded into another run."""
    if run.state in {RunState.RUNNING, RunState.VERIFYING}:
        work_without_pause()
    match run.state:
        case RunState.PENDING | RunState.DEFERRED:
            return await decide(parts, run)
        case RunState.RUNNING if run.plan is not None:
            return await apply(parts, run, run.plan)
        case RunState.VERIFYING if run.plan is not None:
            return await verify(parts, run, run.plan)
        case RunState.AWAITING_APPROVAL:
            return await expire(parts, run)
        case _:
            raise RuntimeError(f"a run that is {run.state} cannot be advanced")


async def decide(parts: EngineContext, run: Run) -> Run | None:
    """Plan and guard: ends in running, deferred, awaiting approval, or a final state."""
    run = await follow_catalog(parts, await speak_for(parts, run))
    over = await _over(parts, run) or await go_on(parts, run)
    if over is not None:
        return over
    refused = await refuse_early(parts, run)
    if refused is not None:
        return refused
    waiting = await undo.wait(parts, run)
    if waiting is not None:
        return waiting
    work_without_pause()  # the rest is decided on the present state of other systems
    try:
        plan = await _plan(parts, run)
    except TransientError as error:
        return await _unreachable(parts, run, error)
    except AppError as error:
        return await _unplannable(parts, run, error)
    return await admit(parts, DecisionInput(run, plan, await look_outside(parts, run, plan)))


async def _over(parts: EngineContext, run: Run) -> Run | None:
    """The run when it has ended, was put off, or is not due after all; None when it may be decided."""
    if run.state.is_final or run.lease_owner is None:
        return run
    if run.not_before <= parts.clock():
        return None
    async with parts.turn() as turn:  # the clock was set back a little
        return await runs.postpone(turn.tx, run, run.not_before)


async def _plan(parts: EngineContext, run: Run) -> Plan:
    if run.purpose is not Purpose.REMEDY:
        return await undo.plan(parts, run)
    planner = Planner(parts.clients, parts.policy.scope, parts.policy.plan_timeout.total_seconds())
    return await planner.plan(trigger(parts, run))


def trigger(parts: EngineContext, run: Run) -> Trigger:
    """Return the planner's input for a run."""
    alert = TemplateContext(
        labels=run.labels,
        annotations=run.annotations,
        fingerprint=run.fingerprint,
        starts_at=run.alert_starts_at,
        generator_url=run.generator_url,
    )
    return Trigger(run.id, run.remediation, run.rung, alert, parts.clock())


async def _unreachable(parts: EngineContext, run: Run, error: TransientError) -> Run:
    """Look again soon; after `reach_within` the rung did not help, as any other, and the next one may page.

    A run that takes another one back looks for as long as it takes, since it has no next rung.
    """
    within = run.remediation.limits.reach_within
    async with parts.turn() as turn:
        since = run.unreachable_since or turn.now
        entry = Entry(error.message, error.reason)
        until = turn.now + parts.policy.recheck
        if run.purpose is Purpose.REMEDY:
            if turn.now >= since + within:
                message = f"the target could not be reached for {format_duration(within)}: {error.message}"
                return await escalate(turn, run, replace(entry, message=message))
            until = min(until, since + within)
        return await defer(turn, run, until, entry, unreachable_since=since)


async def _unplannable(parts: EngineContext, run: Run, error: AppError) -> Run:
    """A refusal found while planning the first rung denies; anything else fails the rung, and the next may page."""
    entry = Entry(error.message, error.reason)
    if error.reason in _DENIALS and run.admitted_at is None and run.rung == 0:
        denial = Decision(
            guard=_DENIALS[error.reason], verdict=Verdict.DENY, reason=error.reason, message=error.message
        )
        parts.metrics.refused(denial.verdict, denial.reason)
        async with parts.turn() as turn:
            return await close(turn, run, RunState.DENIED, entry, decisions=[denial.model_dump(mode="json")])
    return await escalate_or_fail(parts, run, entry)


async def expire(parts: EngineContext, run: Run) -> Run:
    """End a run without an answer in time: silence is never consent."""
    async with parts.turn() as turn:
        timeout = parts.policy.approval_timeout
        if await stands_at(turn, run) is not None:
            return await runs.postpone(turn.tx, run, turn.now + timeout)
        if not await still_wanted(turn, run):
            return await unwanted(turn, run)
        if turn.now < run.updated_at + timeout:
            return await runs.postpone(turn.tx, run, run.updated_at + timeout)
        entry = Entry(f"no person approved within {format_duration(timeout)}", Reason.APPROVAL_EXPIRED)
        return await close(turn, run, RunState.EXPIRED, entry)
