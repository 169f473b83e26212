"""Decides whether a run may go on: facts, guards, verdict, budget and the target's lock in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from pydantic import TypeAdapter

from app.domain.decisions import Decision, Verdict
from app.domain.durations import format_duration
from app.domain.external_facts import Outside
from app.domain.model import JsonObject
from app.domain.obstacles import Breaker, Storm
from app.domain.plans import Plan
from app.domain.reasons import Reason
from app.domain.remediation import Purpose, Switchable
from app.domain.states import RunState
from app.engine.context import EngineContext, Turn
from app.engine.outcomes import earned_mode
from app.engine.outcomes.notices import Notice, tell
from app.engine.stages import folding
from app.engine.stages.approval import approved_plan, ask, differences, void, with_changes
from app.engine.stages.closing import close, still_wanted, undefer, unwanted
from app.engine.stages.patience import deny, gives_up, not_yet, too_old
from app.guards import chain
from app.guards.base import Facts
from app.store.audit.chain import Entry
from app.store.db.connection import AsyncConnection
from app.store.gates import breakers, pauses, storms
from app.store.gates import facts as facts_of
from app.store.gates.facts import FactsQuery, Probe
from app.store.gates.facts import rate_free_at as _full
from app.store.ledger import episodes, runs, undos
from app.store.ledger.runs import Run

_ON_HOLD = {Reason.PAUSED, Reason.FROZEN}
_NO_EVENT = {"decisions", "tell_at", "unreachable_since"}  # these may change while a run is refused for the same reason
_ANSWERS = TypeAdapter(list[Decision])
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """The input of a decision: a run, its plan once there is one, and the answers of other systems for it."""

    run: Run
    plan: Plan | None = None
    outside: Outside = field(default_factory=Outside)


async def gather(tx: AsyncConnection, parts: EngineContext, matter: DecisionInput, now: datetime) -> Facts:
    """Everything that guards may know about a run, read in the caller's transaction."""
    run, plan, policy = matter.run, matter.plan, parts.policy
    name, limits, key = run.remediation.name, run.remediation.limits, plan.target.key if plan else None
    is_new = run.admitted_at is None and run.purpose is Purpose.REMEDY
    asked = FactsQuery(
        now=now,
        run_id=run.id,
        remediation=name,
        target_key=key,
        rate=limits.rate,
        global_rate=policy.rate,
        target_rate=limits.target_rate if plan else (),
        storm=limits.storm,
        global_storm=policy.storm,
    )
    seen = await facts_of.probe(tx, asked)
    facts = Facts(
        now=now,
        remediation=run.remediation,
        ceiling=policy.ceiling,
        scope=policy.scope,
        alert_starts_at=run.alert_starts_at,
        attempt=run.attempt,
        admitted=run.admitted_at is not None,
        run_id=run.id,
        rung=run.rung,
        purpose=run.purpose,
        approved_by=run.approved_by,
        # A run that was let through goes on as it was, even if other runs have cost its remediation its mode since.
        earned=await earned_mode.earned(tx, run.remediation, now) if is_new else None,
        holds=await pauses.on(tx, now, name, key or run.target_key) if seen.holds else (),
        freeze=parts.catalog().frozen(run.remediation, now),
        freshness=matter.outside.freshness,
        breaker=await breakers.get(tx, name) if seen.breaker else Breaker(),
        rate_full=await _full(tx, limits.rate, now, facts_of.of_remediation(name)) if seen.rate else None,
        global_rate_full=await _full(tx, policy.rate, now) if seen.global_rate else None,
        targets_in_work=seen.targets_in_work,
        runs_in_work=seen.runs_in_work,
        concurrency=policy.concurrency,
        storms=await _storms(tx, parts, run, now, seen),
        plan=plan,
        not_yet=None if plan is None else not_yet(plan),
    )
    return facts if plan is None else await _with_target(tx, facts, matter, plan, seen)


async def _with_target(tx: AsyncConnection, facts: Facts, matter: DecisionInput, plan: Plan, seen: Probe) -> Facts:
    run, key = matter.run, plan.target.key
    population = matter.outside.population
    if population is not None:
        in_work = await facts_of.held_targets(tx, run.id)
        population = population.model_copy(update={"unhealthy": population.unhealthy | (in_work & population.members)})
    rate = run.remediation.limits.target_rate
    # The holder first: on PostgreSQL it may end in between, and is then found as the last one that has ended.
    holder = await facts_of.holder(tx, key, run.id) if seen.holder else None
    ended = await facts_of.last_outcome(tx, key, run.id) if seen.last_outcome or seen.holder else None
    return replace(
        facts,
        population=population,
        target_rate_full=await _full(tx, rate, facts.now, facts_of.on_target(key)) if seen.target_rate else None,
        last_outcome=ended,
        holder=holder,
    )


async def _storms(tx: AsyncConnection, parts: EngineContext, run: Run, now: datetime, seen: Probe) -> tuple[Storm, ...]:
    """The storms that stand, or that the alerts of now make."""
    if Switchable.STORM in run.remediation.without_guards or run.admitted_at is not None:
        return ()
    until = now + parts.policy.storm_pause
    found = []
    over_all = await facts_of.rate_exceeded(tx, parts.policy.storm, now) if seen.global_storm else None
    if over_all is not None:
        message = f"more than {over_all} alerts trigger remediations: this is one outage"
        found.append(Storm(storms.OVER_ALL, message, until))
    # Where all together are too many, nothing hangs on whether its own are, and to count them would take its time.
    own = None
    if over_all is None and seen.storm:
        own = await facts_of.rate_exceeded(tx, run.remediation.limits.storm, now, run.remediation.name)
    if own is not None:
        found.append(Storm(run.remediation.name, f"more than {own} alerts trigger it: this is one outage", until))
    return (*found, *(await storms.standing(tx, run.remediation.name, now) if seen.storms else ()))


async def refuse_early(parts: EngineContext, run: Run) -> Run | None:
    """Let the guards that need no target answer before anything is read from it; None when the run may be planned."""
    now = parts.clock()
    async with parts.database.read() as tx:
        firing = await _is_wanted(tx, run)
        decisions = chain.decide(await gather(tx, parts, DecisionInput(run), now))
    if firing and not _refuses(chain.outcome(decisions)):
        return None
    return await admit(parts, DecisionInput(run))


async def _is_wanted(tx: AsyncConnection, run: Run) -> bool:
    """Ask like `still_wanted`, without its promise that the answer stays true."""
    if run.purpose is Purpose.REVERT:
        return not await undos.fires_again(tx, run)
    return run.purpose is Purpose.UNDO or await episodes.any_open(tx, run.id)


def _refuses(decision: Decision) -> bool:
    return decision.verdict in {Verdict.DENY, Verdict.DEFER}


async def admit(parts: EngineContext, matter: DecisionInput) -> Run | None:
    """Decide on a run and write the verdict.

    None when it was folded into another one, or when it has no plan yet and nothing stands against making one.
    """
    run, plan = matter.run, matter.plan
    # Not synced: the intent of the run's first step is.
    async with parts.turn(lock="admission", synced=False) as turn:
        if not await still_wanted(turn, run):
            return await unwanted(turn, run)
        if plan is not None and run.admitted_at is None and run.purpose is Purpose.REMEDY:
            answering = partial(folding.answers, candidate=run, target=plan.target)
            other = await runs.sharing(turn.tx, run, plan.target.key, answering)
            if other is not None:
                await runs.fold(turn.tx, run, other, turn.now)
                return None
        facts = await gather(turn.tx, parts, matter, turn.now)
        decisions = chain.decide(facts)
        decision = chain.outcome(decisions)
        if plan is None and not _refuses(decision):
            return None
        approved = approved_plan(run)
        if plan is not None and approved is not None and decision.verdict is Verdict.ALLOW:
            changes = differences(approved, plan)
            if changes:
                run = await void(turn, run, changes)
                decisions = chain.decide(replace(facts, approved_by=None))
                decision = with_changes(chain.outcome(decisions), changes)
            else:
                plan = approved
        if decision.reason is Reason.STORM:
            await _storm(turn, run, decision, facts.storms)
        is_first = run.admitted_at is None and facts.is_remedy
        if decision.verdict is Verdict.ALLOW and facts.breaker.opened_at is not None and is_first:
            await breakers.begin_trial(turn.tx, run.remediation.name, run.id)
        if plan is not None and run.purpose is Purpose.REMEDY:
            await undos.wake_for_target(turn.tx, turn.now, run, plan.target.key)
        answers = _ANSWERS.dump_python(decisions, mode="json")
        return await _write(turn, run, plan, decision, answers)


async def _storm(turn: Turn, run: Run, decision: Decision, found: tuple[Storm, ...]) -> None:
    """Keep the storm for the others, and page once for all of it."""
    of_population = Storm(run.remediation.name, decision.message, turn.now + turn.parts.policy.storm_pause)
    for one in found or (of_population,):
        new = await storms.keep(turn.tx, one, turn.now)
        if new is None:
            continue
        whose = f"Remediation {one.remediation}" if one.remediation else "Every remediation"
        title = f"Storm: {whose.lower()} holds still"
        about = run.remediation if one.remediation else None
        body = f"{one.message}. {whose} waits; people are needed."
        await tell(turn, about, Notice(f"storm:{new}", title, body))


async def _write(turn: Turn, run: Run, plan: Plan | None, decision: Decision, answers: list[JsonObject]) -> Run:
    """Turn the verdict into the run's next state, with the answer of every guard."""
    entry = Entry(decision.message, decision.reason, data={"guard": decision.guard})
    planned: dict[str, Any] = {"plan": plan, "target_key": plan.target.key} if plan else {}
    policy = turn.parts.policy
    if decision.verdict is not Verdict.ALLOW:
        turn.parts.metrics.refused(decision.verdict, decision.reason)
    log.info("run decided", verdict=decision.verdict.value, reason=decision.reason, message=decision.message)
    match decision.verdict:
        case Verdict.DENY:
            return await deny(turn, run, entry, decisions=answers, **planned)
        case Verdict.OBSERVE:
            state = RunState.OBSERVED if run.admitted_at is None else RunState.FAILED
            return await close(turn, run, state, entry, decisions=answers, **planned)
        case Verdict.DEFER:
            return await _put_off(turn, run, decision, entry, planned | {"decisions": answers})
        case Verdict.NEEDS_APPROVAL:
            planned |= {"not_before": turn.now + policy.approval_timeout, "decisions": answers}
            if plan is not None:
                await ask(turn, run, plan, decision)
            pending = await undefer(turn, run)
            return await runs.move(turn.tx, pending, RunState.AWAITING_APPROVAL, turn.now, entry, **planned)
        case Verdict.ALLOW:
            planned |= {"holds_target": True, "admitted_at": run.admitted_at or turn.now}
            planned |= {"started_at": run.started_at or turn.now, "decisions": answers}
            pending = await undefer(turn, run)
            return await runs.move(turn.tx, pending, RunState.RUNNING, turn.now, Entry("admitted"), **planned)


async def _put_off(turn: Turn, run: Run, decision: Decision, entry: Entry, changes: dict[str, Any]) -> Run:
    if gives_up(turn, run, decision):
        limit = format_duration(run.remediation.max_age)
        message = f"{entry.message}; the alert is older than max_age ({limit}), so that it is not waited for"
        return await too_old(turn, run, replace(entry, message=message))
    if "plan" in changes or decision.reason in _ON_HOLD:  # it has answered, or need not be asked
        changes["unreachable_since"] = None
    if run.approved_by is not None:  # the approved plan stays the one to apply
        changes.pop("plan", None)
    if run.approved_by is not None or run.holds_target:  # the lock stays on the targets that the run has acted on
        changes.pop("target_key", None)
    return await defer(turn, run, look_again(turn, decision), entry, **changes)


def look_again(turn: Turn, decision: Decision) -> datetime:
    """Return when a deferred run is decided again, should nothing wake it before."""
    soon = turn.now + turn.parts.policy.recheck
    if decision.until is None:
        return soon
    # The end of a pause wakes the runs that wait for it, but may not see this one yet.
    return min(soon, decision.until) if decision.reason is Reason.PAUSED else decision.until


async def defer(turn: Turn, run: Run, until: datetime, entry: Entry, **changes: Any) -> Run:
    """Put a run off; the same refusal again is not an event, or a busy target would fill the audit."""
    bound = turn.parts.policy.tell_waiting
    if run.tell_at is None and bound:
        changes["tell_at"] = turn.now + bound
    if run.state is RunState.DEFERRED and run.reason is entry.reason:
        answers = {name: changes[name] for name in _NO_EVENT & changes.keys()}
        return await runs.postpone(turn.tx, run, until, **answers)
    return await runs.move(
        turn.tx, await undefer(turn, run), RunState.DEFERRED, turn.now, entry, not_before=until, **changes
    )
