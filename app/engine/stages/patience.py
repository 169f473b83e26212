"""How long a run waits for its target, and for something to do there, before it goes to the next rung."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.backends.actions import actions
from app.domain.decisions import Decision
from app.domain.plans import NotYet, Plan
from app.domain.reasons import Reason
from app.domain.remediation import Switchable
from app.domain.states import RunState
from app.engine.context import Turn
from app.engine.stages.closing import close, escalate
from app.store.audit.chain import Entry
from app.store.ledger.runs import Run

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def not_yet(plan: Plan) -> NotYet | None:
    """The wait of a plan: for a step that comes too early, while no step on the target has anything to do."""
    said = [step.not_yet for step in plan.steps if step.not_yet is not None]
    if not said or any(step.changes and actions()[step.action].target_backend for step in plan.steps):
        return None
    return min(said, key=lambda one: (one.at is not None, one.at or _LONG_AGO))


async def deny(turn: Turn, run: Run, entry: Entry, **changes: Any) -> Run:
    """End a run that may not go on; one that waited for its target until its alert was too old tries the next rung."""
    if entry.reason is Reason.MAX_AGE and run.unreachable_since is not None:
        message = f"the target could not be reached, and {entry.message}"
        return await escalate(turn, run, Entry(message, Reason.TARGET_UNREACHABLE, data=entry.data))
    if entry.reason is Reason.MAX_AGE and run.state is RunState.DEFERRED and run.reason is Reason.NOT_YET:
        return await too_old(turn, run, replace(entry, message=f"{run.message}; {entry.message}"))
    if 0 < run.rung < len(run.remediation.rungs) - 1:  # the next one may page
        return await escalate(turn, run, entry)
    # A run that has acted, or found its first rung of no use, and may not go on has failed.
    state = RunState.DENIED if run.admitted_at is None and run.rung == 0 else RunState.FAILED
    return await close(turn, run, state, entry, **changes)


async def too_old(turn: Turn, run: Run, entry: Entry) -> Run:
    """Go from a rung that had nothing to do while its alert was young to the next; that is no failure of its own."""
    is_last = run.rung + 1 >= len(run.remediation.rungs)
    if is_last and run.admitted_at is None:
        return await close(turn, run, RunState.DENIED, replace(entry, reason=Reason.MAX_AGE))
    return await escalate(turn, run, replace(entry, reason=Reason.NOT_YET))


def gives_up(turn: Turn, run: Run, decision: Decision) -> bool:
    """Whether a rung that has nothing to do yet has waited until its alert was too old."""
    if decision.reason is not Reason.NOT_YET or Switchable.MAX_AGE in run.remediation.without_guards:
        return False
    return turn.now - run.alert_starts_at > run.remediation.max_age
