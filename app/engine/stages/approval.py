"""Asks people: the exact plan, and the commands to say yes or no. The engine applies only an approved plan.

A yes holds for the plan of its question. Everything is decided again when it comes. If a fresh plan no longer means the
same, the yes is void and the question is put again, with the changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.backends.actions import actions
from app.domain.decisions import Decision, Verdict
from app.domain.model import JsonObject
from app.domain.plans import Plan, PlannedStep
from app.domain.wording import changes, on_target, one_line, parameters, shown
from app.engine.context import Turn
from app.engine.outcomes.notices import Notice, alert_in_words, call, links, tell
from app.store.audit.chain import Entry
from app.store.ledger import approvals, outbox
from app.store.ledger.runs import Run

_LONGEST_TEXT = 2000  # characters of a sentence


def approved_plan(run: Run) -> Plan | None:
    """The plan that a person said yes to and that is not yet applied; None where none was asked about."""
    if run.approved_by is None or run.plan is None or run.plan.rung != run.rung:
        return None
    return run.plan


def differences(approved: Plan, fresh: Plan) -> list[str]:
    """Return the differences of meaning between a fresh plan and the approved one, without differences of time."""
    if approved.target.key != fresh.target.key:
        return [f"the target is {fresh.target.key}, no longer {approved.target.key}"]
    if [step.action for step in approved.steps] != [step.action for step in fresh.steps]:
        return ["the steps are other ones"]
    found = []
    for number, (old, new) in enumerate(zip(approved.steps, fresh.steps, strict=True), start=1):
        action = actions()[new.action]
        before, after = _flat(action.meaning(old)), _flat(action.meaning(new))
        found += [
            f"step {number}: {name} is {shown(after.get(name))}, no longer {shown(before.get(name))}"
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        ]
    return found


def _flat(value: JsonObject, prefix: str = "") -> JsonObject:
    flat: JsonObject = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, dict) and item else {f"{prefix}{name}": item}
    return flat


async def void(turn: Turn, run: Run, changes: Sequence[str]) -> Run:
    """Take back the approval of a run whose plan is another one by now."""
    message = f"the plan that {run.approved_by} approved has changed: {'; '.join(changes)}"
    return await approvals.void(turn.tx, run, turn.now, Entry(message, data={"changes": list(changes)}))


def with_changes(decision: Decision, changes: Sequence[str]) -> Decision:
    """Return the decision to ask again, with the changes."""
    if decision.verdict is not Verdict.NEEDS_APPROVAL:
        return decision
    message = f"{decision.message}; the approved plan has changed: {'; '.join(changes)}"
    return decision.model_copy(update={"message": message})


async def ask(turn: Turn, run: Run, plan: Plan, decision: Decision) -> None:
    """Put the question to people, together with the state that it is about."""
    title = f"Approve? {run.remediation.name}{on_target(plan.target.key)}"
    body = "\n".join(_body(turn, run, plan, decision))
    await tell(turn, run.remediation, Notice(outbox.question_key(run.id, run.lease_epoch), title, body, run.id))


def _body(turn: Turn, run: Run, plan: Plan, decision: Decision) -> Iterator[str]:
    until = turn.now + turn.parts.policy.approval_timeout
    yield f"Remediation {run.remediation.name}: {run.remediation.summary}"
    yield f"Why it asks: {one_line(decision.message, _LONGEST_TEXT)}"
    yield f"Until: {until:%Y-%m-%d %H:%M:%S} UTC; no answer means no"
    yield ""
    yield from alert_in_words(run)
    yield ""
    yield from describe(plan)
    further = run.remediation.rungs[run.rung + 1 :]
    if further:
        rungs = "; then ".join(" and ".join(_named(step.action) for step in rung.steps) for rung in further)
        yield f"If that does not help, under the same approval: {rungs}"
    yield ""
    yield from links(turn, run)
    # A yes to an older plan is not one to this.
    yield f"Approve: {call(turn, run, f'approve?question={plan.question}')}"
    yield f"Reject: {call(turn, run, 'reject')}"


def describe(plan: Plan) -> Iterator[str]:
    """Describe a plan for people: target, steps, the changes and risk of each, and whether it can be undone."""
    if on_target(plan.target.key):
        yield f"Target: {one_line(plan.target.key)}"
    yield "These steps will be done, and nothing else:"
    for number, step in enumerate(plan.steps, start=1):
        yield f"{number}. {one_line(step.summary, _LONGEST_TEXT)}"
        yield from (f"   {line}" for line in _step(step))


def _step(step: PlannedStep) -> Iterator[str]:
    if not step.changes:
        yield "(is so already)"
        return
    yield from step_in_words(step)
    yield from parameters(step)
    yield f"risk: {step.risk}; {_way_back(step.action)}"


def step_in_words(step: PlannedStep) -> list[str]:
    """Describe a step's changes, from before to after, in its action's words."""
    action = actions().get(step.action)
    return changes(step) if action is None else action.in_words(step)


def _named(action: str) -> str:
    known = actions().get(action)
    return action if known is None else f"{action} ({known.risk}; {_way_back(action)})"


def _way_back(action: str) -> str:
    known = actions().get(action)
    return "it can be undone" if known is not None and known.can_undo else "it cannot be undone"
