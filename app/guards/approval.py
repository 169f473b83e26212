"""Must a person approve: because the mode says so, or because the plan destroys something?

A plan that changes nothing needs no question. A further rung that changes something is asked about then.
"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Risk
from app.guards.base import Facts

_GUARD = "approval"


def approval(facts: Facts) -> Decision:
    """Ask for approval once; an approval holds for the run's further rungs too."""
    if not facts.is_remedy:
        return allow(_GUARD, "it takes back an allowed run")
    if facts.approved_by is not None:
        return allow(_GUARD, f"approved by {facts.approved_by}")
    if facts.plan is not None and not facts.plan.changes:
        return allow(_GUARD, "the plan changes nothing: there is nothing to approve")
    steps = [] if facts.plan is None else [step for step in facts.plan.steps if step.changes]
    destroys = [step.action for step in steps if step.risk is Risk.DESTRUCTIVE]
    if facts.mode is Mode.APPROVE:
        message = "the mode is approve"
    elif destroys and not facts.remediation.allow_destructive:
        message = f"{destroys[0]} is destructive and the remediation does not say allow_destructive: true"
    else:
        return allow(_GUARD)
    return Decision(guard=_GUARD, verdict=Verdict.NEEDS_APPROVAL, reason=Reason.APPROVAL_REQUIRED, message=message)
