"""Explains the plan for an alert now, against the real targets and the stored facts; changes nothing.

Used by `remediator plan`. It asks the same planner and the same guards as the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.engine import Row

from app.catalog.matchers import Matcher
from app.domain.alerts import Alert, identity
from app.domain.decisions import Decision, Verdict
from app.domain.episodes import Episode, receive
from app.domain.errors import AppError
from app.domain.model import Value
from app.domain.plans import Plan
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Remediation
from app.domain.states import RunState
from app.engine.context import EngineContext
from app.engine.pipeline import trigger as trigger_of
from app.engine.stages.admission import DecisionInput, gather
from app.engine.stages.external_facts import look_outside
from app.engine.stages.intake import pending_run
from app.engine.stages.planning import Planner
from app.guards import chain
from app.store.ledger import episodes

_NEAREST = 3


class Prospect(Value):
    """The answer of one matching remediation now."""

    remediation: str
    summary: str
    verdict: str  # would_run | would_ask | would_wait | would_observe | would_refuse | cannot_plan | has_run
    reason: Reason | None = None
    message: str = ""
    retry: str | None = None  # where it has run: the verdict on a retry, which mode, plan and decisions are then about
    mode: Mode | None = None  # that holds now: its own, under the ceiling and its earned mode
    plan: Plan | None = None
    decisions: tuple[Decision, ...] = ()


class NearMiss(Value):
    """A remediation that does not match, and the matchers that say no."""

    remediation: str
    failing: tuple[str, ...]


class Explanation(Value):
    """The answers of all matching remediations to one alert."""

    labels: dict[str, str]
    status: str
    prospects: tuple[Prospect, ...] = ()
    nearest: tuple[NearMiss, ...] = ()  # only where nothing matches

    @property
    def is_certain(self) -> bool:
        """Whether everything that had to be asked could be asked."""
        return not any(prospect.reason in _UNCERTAIN for prospect in self.prospects)

    @property
    def would_act(self) -> bool:
        """Whether anything would be done or asked for."""
        return any(prospect.verdict in {"would_run", "would_ask"} for prospect in self.prospects)


_UNCERTAIN = {Reason.TARGET_UNREACHABLE, Reason.CHECK_UNOBSERVABLE, Reason.CONFIG_INVALID, Reason.FORBIDDEN}
_VERDICTS = {
    Verdict.ALLOW: "would_run",
    Verdict.NEEDS_APPROVAL: "would_ask",
    Verdict.DEFER: "would_wait",
    Verdict.OBSERVE: "would_observe",
    Verdict.DENY: "would_refuse",
}


async def explain(parts: EngineContext, alert: Alert) -> Explanation:
    """Plan and decide for every remediation that matches, or name the nearest that do not."""
    if not alert.is_firing:
        return Explanation(labels=alert.labels, status=alert.status)
    catalog = parts.catalog()
    matching = catalog.match(alert.labels)
    if not matching:
        near = nearest(list(catalog.remediations.values()), alert.labels)
        return Explanation(labels=alert.labels, status=alert.status, nearest=near)
    name = identity(alert.labels, alert.fingerprint, parts.policy.episodes.ignored_labels)
    async with parts.database.browse() as tx:
        open_now = (await episodes.newest(tx, [name])).get(name)
        spent = await episodes.runs_for(tx, open_now.id) if open_now is not None and open_now.is_open else {}
    trigger = receive(alert, name, None, parts.clock(), parts.policy.episodes).written[0]
    prospects = [
        await _has_run(parts, remediation, open_now or trigger, spent[remediation.name])
        if remediation.name in spent
        else await _prospect(parts, remediation, trigger)
        for remediation in matching
    ]
    return Explanation(labels=alert.labels, status=alert.status, prospects=tuple(prospects))


async def _has_run(parts: EngineContext, remediation: Remediation, trigger: Episode, run: Row[Any]) -> Prospect:
    """Explain a run that has ended: it does nothing more by itself; show a person's retry if one is possible."""
    message = f"this alert has triggered run {run.id} ({run.state}), "
    if not RunState(run.state).is_final:
        message += f"which is not over: GET /remediations/{run.id} says why it waits, and until when"
        return Prospect(remediation=remediation.name, summary=remediation.summary, verdict="has_run", message=message)
    message += f"and triggers again once it has resolved, or by POST /remediations/{run.id}/retry"
    again = await _prospect(parts, remediation, trigger, run.attempt)
    why = ": ".join(part for part in (f" ({again.reason})" if again.reason else "", again.message) if part)
    verdict = "cannot be planned" if again.verdict == "cannot_plan" else again.verdict.replace("_", " ")
    message += f", which {verdict}{why}"
    return again.model_copy(update={"verdict": "has_run", "reason": None, "message": message, "retry": again.verdict})


async def _prospect(parts: EngineContext, remediation: Remediation, trigger: Episode, attempt: int = 1) -> Prospect:
    now = parts.clock()
    run = pending_run(remediation, parts.catalog().digest, trigger, now, attempt=attempt)
    shown = {"remediation": remediation.name, "summary": remediation.summary}
    planner = Planner(parts.clients, parts.policy.scope, parts.policy.plan_timeout / timedelta(seconds=1))
    try:
        plan = await planner.plan(trigger_of(parts, run))
    except AppError as error:
        return Prospect(**shown, verdict="cannot_plan", reason=error.reason, message=error.message)
    matter = DecisionInput(run, plan, await look_outside(parts, run, plan))
    async with parts.database.browse() as tx:
        facts = await gather(tx, parts, matter, now)
    decisions = chain.decide(facts)
    final = chain.outcome(decisions)
    return Prospect(
        **shown,
        verdict=_VERDICTS[final.verdict],
        reason=final.reason,
        message=final.message,
        mode=facts.mode,
        plan=plan,
        decisions=tuple(decisions),
    )


def nearest(remediations: Sequence[Remediation], labels: dict[str, str]) -> tuple[NearMiss, ...]:
    """Return the remediations with the largest share of matchers that hold, with their other matchers."""
    scored = []
    for remediation in remediations:
        failing = [text for text in remediation.matchers if not Matcher.parse(text).matches(labels)]
        held = len(remediation.matchers) - len(failing)
        if held:
            scored.append(
                (held / len(remediation.matchers), NearMiss(remediation=remediation.name, failing=tuple(failing)))
            )
    scored.sort(key=lambda pair: -pair[0])
    return tuple(miss for _, miss in scored[:_NEAREST])
