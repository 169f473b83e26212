"""Decides whether a run may go on: facts, guards, verdict, budget and the target's lock in one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.decisions import Decision, Verdict
from app.domain.plans import Plan
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.closing import close, still_firing, undefer
from app.engine.parts import Parts, Turn
from app.engine.planning import is_templated
from app.guards import chain
from app.guards.base import Facts
from app.store import episodes, facts, runs
from app.store.runs import Entry, Run

log = structlog.get_logger()


async def gather(tx: AsyncConnection, parts: Parts, run: Run, plan: Plan | None, now: datetime) -> Facts:
    """Everything that guards may know about a run, read in the caller's transaction."""
    name = run.remediation.name
    key = plan.target.key if plan else None
    return Facts(
        now=now,
        remediation=run.remediation,
        ceiling=parts.policy.ceiling,
        scope=parts.policy.scope,
        alert_starts_at=run.alert_starts_at,
        attempt=run.attempt,
        admitted=run.admitted_at is not None,
        approved_by=run.approved_by,
        rate_full=await facts.rate_free_at(tx, run.remediation.limits.rate, now, name),
        global_rate_full=await facts.rate_free_at(tx, parts.policy.rate, now, None),
        targets_in_work=await facts.targets_in_work(tx, name, run.id) if run.remediation.limits.max_targets else 0,
        plan=plan,
        target_templated=is_templated(run.remediation),
        last_outcome=await facts.last_outcome(tx, key, run.id) if key else None,
        holder=await facts.holder(tx, key, run.id) if key else None,
    )


async def refuse_early(parts: Parts, run: Run) -> Run | None:
    """Let the guards that need no target answer before anything is read from it; None when the run may be planned."""
    now = parts.clock()
    async with parts.database.read() as tx:
        firing = await episodes.any_open(tx, run.id)
        decisions = chain.decide(await gather(tx, parts, run, None, now))
    if firing and not _refuses(chain.outcome(decisions)):
        return None
    return await admit(parts, run, None)


def _refuses(decision: Decision) -> bool:
    return decision.verdict in {Verdict.DENY, Verdict.DEFER}


async def admit(parts: Parts, run: Run, plan: Plan | None) -> Run | None:
    """Decide on a run and write the verdict.

    None when it was folded into another one, or when it has no plan yet and nothing stands against making one.
    """
    async with parts.turn(lock="admission") as turn:
        if not await still_firing(turn, run):
            return await _resolved(turn, run)
        if plan is not None and run.admitted_at is None:
            other = await runs.sharing(turn.tx, run, plan.target.key)
            if other is not None:
                await runs.fold(turn.tx, run, other, turn.now)
                return None
        decisions = chain.decide(await gather(turn.tx, parts, run, plan, turn.now))
        if plan is None and not _refuses(chain.outcome(decisions)):
            return None
        await runs.save_decisions(turn.tx, run, decisions)
        return await _write(turn, run, plan, chain.outcome(decisions))


async def _resolved(turn: Turn, run: Run) -> Run:
    """The alert ended before this decision: nothing is done any more."""
    if run.admitted_at is None:
        entry = Entry("the alert resolved before anything was done", Reason.RESOLVED_BEFORE_START)
        return await close(turn, run, RunState.CANCELLED, entry)
    if run.setback is None or run.setback.reason is Reason.ALERT_STILL_FIRING:
        entry = Entry(f"the alert resolved before rung {run.rung + 1} was tried", Reason.VERIFIED)
        return await close(turn, run, RunState.SUCCEEDED, entry)
    return await close(turn, run, RunState.FAILED, Entry(run.setback.message, run.setback.reason))


async def _write(turn: Turn, run: Run, plan: Plan | None, decision: Decision) -> Run:
    """Turn the verdict into the run's next state."""
    entry = Entry(decision.message, decision.reason, data={"guard": decision.guard})
    planned = {"plan": plan, "target_key": plan.target.key} if plan else {}
    policy = turn.parts.policy
    if decision.verdict is not Verdict.ALLOW:
        turn.parts.metrics.refused(decision.verdict, decision.reason)
    log.info("run decided", verdict=decision.verdict.value, reason=decision.reason, message=decision.message)
    match decision.verdict:
        case Verdict.DENY:
            # A run that has acted and may not go on has failed.
            state = RunState.DENIED if run.admitted_at is None else RunState.FAILED
            return await close(turn, run, state, entry, **planned)
        case Verdict.OBSERVE:
            state = RunState.OBSERVED if run.admitted_at is None else RunState.FAILED
            return await close(turn, run, state, entry, **planned)
        case Verdict.DEFER:
            if run.holds_target:  # the lock stays on what the run has acted on
                planned.pop("target_key", None)
            return await defer(turn, run, decision.until or turn.now + policy.recheck, entry, **planned)
        case Verdict.NEEDS_APPROVAL:
            planned["not_before"] = turn.now + policy.approval_timeout
            pending = await undefer(turn, run)
            return await runs.move(turn.tx, pending, RunState.AWAITING_APPROVAL, turn.now, entry, **planned)
        case Verdict.ALLOW:
            planned |= {"holds_target": True, "admitted_at": run.admitted_at or turn.now}
            planned["started_at"] = run.started_at or turn.now
            pending = await undefer(turn, run)
            return await runs.move(turn.tx, pending, RunState.RUNNING, turn.now, Entry("admitted"), **planned)


async def defer(turn: Turn, run: Run, until: datetime, entry: Entry, **changes: Any) -> Run:
    """Put a run off; the same refusal again is not an event, or a busy target would fill the audit."""
    if run.state is RunState.DEFERRED and run.reason is entry.reason:
        return await runs.postpone(turn.tx, run, until)
    return await runs.move(
        turn.tx, await undefer(turn, run), RunState.DEFERRED, turn.now, entry, not_before=until, **changes
    )
