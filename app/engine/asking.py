"""Asks people: what would be done, exactly, and how to say yes or no. What was approved is what is done.

A yes holds for the plan that was asked about. Everything is decided again when it comes; where a fresh plan no longer
means the same, the yes is void and the question is put anew, with what changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from app.actions.registry import actions
from app.domain.decisions import Decision, Verdict
from app.domain.model import JsonObject
from app.domain.plans import Plan, PlannedStep
from app.domain.wording import one_line
from app.engine.parts import Turn
from app.engine.telling import Notice, tell
from app.store import approvals
from app.store.events import Entry
from app.store.runs import Run

_MOST_LABELS = 20


def approved_plan(run: Run) -> Plan | None:
    """The plan that a person said yes to and that is not yet applied; None where none was asked about."""
    if run.approved_by is None or run.plan is None or run.plan.rung != run.rung:
        return None
    return run.plan


def differences(approved: Plan, fresh: Plan) -> list[str]:
    """In what a fresh plan does not mean the same as the approved one, without what differs by time only."""
    if approved.target.key != fresh.target.key:
        return [f"the target is {fresh.target.key}, no longer {approved.target.key}"]
    if [step.action for step in approved.steps] != [step.action for step in fresh.steps]:
        return ["the steps are other ones"]
    found = []
    for number, (old, new) in enumerate(zip(approved.steps, fresh.steps, strict=True), start=1):
        action = actions()[new.action]
        before, after = _flat(action.meaning(old)), _flat(action.meaning(new))
        found += [
            f"step {number}: {name} is {_shown(after.get(name))}, no longer {_shown(before.get(name))}"
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
    message = f"what {run.approved_by} approved has changed: {'; '.join(changes)}"
    return await approvals.void(turn.tx, run, turn.now, Entry(message, data={"changes": list(changes)}))


def with_changes(decision: Decision, changes: Sequence[str]) -> Decision:
    """The decision to ask again says what has changed."""
    if decision.verdict is not Verdict.NEEDS_APPROVAL:
        return decision
    message = f"{decision.message}; what was approved before has changed: {'; '.join(changes)}"
    return decision.model_copy(update={"message": message})


async def ask(turn: Turn, run: Run, plan: Plan, decision: Decision) -> None:
    """Put the question to people, together with the state that it is about."""
    title = f"Approve? {run.remediation.name} on {one_line(plan.target.key)}"
    body = "\n".join(_body(turn, run, plan, decision))
    await tell(turn, run.remediation, Notice(f"approval:{run.id}:{run.lease_epoch}", title, body, run.id))


def _body(turn: Turn, run: Run, plan: Plan, decision: Decision) -> Iterator[str]:
    until = turn.now + turn.parts.policy.approval_timeout
    path = f"{turn.parts.policy.external_url}/remediations/{run.id}"
    yield f"Remediation {run.remediation.name}: {run.remediation.summary}"
    yield f"Why it asks: {one_line(decision.message, 2000)}"
    yield f"Until: {until:%Y-%m-%d %H:%M:%S} UTC; no answer means no"
    yield f"Look: {path}"
    approve = f"{path}/approve?question={plan.question}"  # somebody else's yes to an older plan is not one to this
    if turn.parts.policy.external_url:
        yield f'Approve: curl -X POST -H "Authorization: Bearer $TOKEN" "{approve}"'
    else:
        yield f"Approve: POST {approve}"
    yield f"Reject: POST {path}/reject"
    yield ""
    yield from _alert(run)
    yield ""
    yield from describe(plan)
    further = run.remediation.rungs[run.rung + 1 :]
    if further:
        rungs = "; then ".join(" and ".join(step.action for step in rung.steps) for rung in further)
        yield f"If that does not help, under the same approval: {rungs}"


def _alert(run: Run) -> Iterator[str]:
    name = one_line(run.labels.get("alertname", ""))
    yield f"Alert: {name}, firing since {run.alert_starts_at:%Y-%m-%d %H:%M:%S} UTC"
    labels = sorted((name, value) for name, value in run.labels.items() if name != "alertname")
    yield from (f"  {one_line(name)}: {one_line(value)}" for name, value in labels[:_MOST_LABELS])
    if len(labels) > _MOST_LABELS:
        yield f"  and {len(labels) - _MOST_LABELS} labels more"


def describe(plan: Plan) -> Iterator[str]:
    """A plan for people: target, steps, and what each changes from what to what."""
    yield f"Target: {one_line(plan.target.key)}"
    yield "What will be done, and nothing else:"
    for number, step in enumerate(plan.steps, start=1):
        yield f"{number}. {one_line(step.summary, 500)}"
        yield from (f"   {line}" for line in _changes(step))


def _changes(step: PlannedStep) -> Iterator[str]:
    if not step.changes:
        yield "(is so already)"
        return
    for name, value in step.desired.items():
        before = f"{_shown(step.before[name])} → " if name in step.before else ""
        yield f"{one_line(name)}: {before}{_shown(value)}"
    for name, value in step.params.items():
        if value not in (None, [], {}, ""):
            yield f"with {one_line(name)}: {_shown(value)}"


def _shown(value: object) -> str:
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
