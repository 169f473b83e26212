"""Between two steps: whether a run that was let through may make its next call, and how it waits if not.

`execution` asks in the transaction that commits the call's intent, so that no replica begins a call after a pause or a
lower ceiling. A run that has begun keeps its plan and its target and goes on where it stood; any other is decided again
from the beginning.
"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict
from app.domain.errors import ConflictError
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Purpose
from app.domain.states import RunState
from app.domain.wording import on_target
from app.engine.context import EngineContext, Turn
from app.engine.outcomes.notices import Notice, call, links, tell
from app.engine.stages.admission import defer, look_again
from app.engine.stages.closing import undefer
from app.guards import chain
from app.guards.base import Facts
from app.store.audit.chain import Entry
from app.store.gates import breakers, pauses
from app.store.ledger import outbox, runs, steps, waking
from app.store.ledger.runs import Run


async def objection(turn: Turn, run: Run, *, begun: bool) -> Decision | None:
    """Return the objection to a run's next call, in the turn that is to commit its intent; None if there is none."""
    await pauses.mark_beginning(turn.tx)
    facts = Facts(
        now=turn.now,
        remediation=run.remediation,
        ceiling=turn.parts.policy.ceiling,
        scope=turn.parts.policy.scope,
        alert_starts_at=run.alert_starts_at,
        attempt=run.attempt,
        admitted=begun,
        run_id=run.id,
        purpose=run.purpose,
        approved_by=run.approved_by,
        holds=await pauses.on(turn.tx, turn.now, run.remediation.name, run.target_key),
        freeze=turn.parts.catalog().frozen(run.remediation, turn.now),
        plan=run.plan,
    )
    decision = chain.outcome(chain.decide(facts, chain.BETWEEN_STEPS))
    return None if decision.verdict is Verdict.ALLOW else decision


async def halt(turn: Turn, run: Run, decision: Decision, position: int, *, begun: bool) -> Run:
    """Put a run off before its step at `position`, which the turn has not begun."""
    turn.parts.metrics.refused(decision.verdict, decision.reason)
    asks_person = decision.verdict in {Verdict.OBSERVE, Verdict.NEEDS_APPROVAL}
    where = f"step {position + 1} of {len(run.plan.steps) if run.plan else 0} is not begun"
    data = {"guard": decision.guard, "rung": run.rung, "position": position}
    if run.state is RunState.RUNNING:
        entry = Entry(where, decision.reason, data=data)
        run = await runs.move(turn.tx, run, RunState.PENDING, turn.now, entry)
    if not begun:
        # Nothing was done: it gives its admission back, and is refused, asked about or begun like a new one.
        until = turn.now if asks_person else look_again(turn, decision)
        anew = {"admitted_at": None, "started_at": None, "holds_target": run.purpose is Purpose.UNDO}
        waiting = await defer(turn, run, until, Entry(decision.message, decision.reason, data=data), **anew)
        await breakers.give_trial_back(turn.tx, run.remediation.name, run.id)
        await waking.of_run(turn.tx, turn.now, run.remediation.name, run.target_key, acted=True)
        return waiting
    if asks_person:
        return await _ask(turn, await undefer(turn, run), decision, where)
    entry = Entry(f"{where}: {decision.message}", decision.reason, data=data)
    return await defer(turn, run, look_again(turn, decision), entry)


async def _ask(turn: Turn, run: Run, decision: Decision, where: str) -> Run:
    """Ask a person how to go on; silence neither ends a half-done run nor goes on with it."""
    lifted = decision.reason is Reason.MODE_OBSERVE
    first = "start the service without --mode observe, then approve it" if lifted else "approve it"
    message = f"{where}, since the ceiling (--mode) came down: to go on, {first}; else reject or cancel it"
    waiting = {"not_before": turn.now + turn.parts.policy.approval_timeout, "approved_by": None}
    entry = Entry(message, decision.reason, data={"guard": decision.guard, "rung": run.rung})
    title = f"Stands half done: {run.remediation.name}{on_target(run.target_key)}"
    words = [f"{verb.capitalize()}: {call(turn, run, verb)}" for verb in ("approve", "reject", "cancel")]
    body = "\n".join((f"Run {run.id}: {message}.", *links(turn, run), *words))
    await tell(turn, run.remediation, Notice(outbox.question_key(run.id, run.lease_epoch), title, body, run.id))
    return await runs.move(turn.tx, run, RunState.AWAITING_APPROVAL, turn.now, entry, **waiting)


async def go_on(parts: EngineContext, run: Run) -> Run | None:
    """Take up a run that stands between two steps of its plan; None where it does not."""
    if run.admitted_at is None:
        return None
    async with parts.turn() as turn:
        position = await stands_at(turn, run)
        if run.plan is None or position is None:
            return None
        decision = await objection(turn, run, begun=True)
        if decision is not None:
            return await halt(turn, run, decision, position, begun=True)
        entry = Entry(f"goes on at step {position + 1} of {len(run.plan.steps)}")
        return await runs.move(turn.tx, await undefer(turn, run), RunState.RUNNING, turn.now, entry)


async def stands_at(turn: Turn, run: Run) -> int | None:
    """Which step of a run that has begun its plan, and waits, is next; None where it has begun none of them."""
    if run.plan is None or run.plan.rung != run.rung:
        return None
    found = await steps.of_rung(turn.tx, run.id, run.rung)
    return sum(one.state != "started" for one in found) if found else None


def check_ceiling(parts: EngineContext, run: Run | None) -> None:
    """Raise ConflictError where a person's yes to go on would change nothing, since the ceiling still stands."""
    waits = run is not None and run.state is RunState.AWAITING_APPROVAL and run.reason is Reason.MODE_OBSERVE
    if waits and parts.policy.ceiling is Mode.OBSERVE:
        raise ConflictError("this replica runs with --mode observe: start it without, then approve; or cancel the run")
