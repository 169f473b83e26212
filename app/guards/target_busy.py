"""Does another run work on the target?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.domain.remediation import Risk
from app.guards.base import Facts

_GUARD = "target_busy"


def target_busy(facts: Facts) -> Decision:
    """Defer until the other run ends; its end wakes this one. A stronger action may make a weaker one needless."""
    busy = facts.holder
    if busy is None:
        return allow(_GUARD)
    risks = [] if facts.plan is None else [step.risk for step in facts.plan.steps]
    covered = busy.risk.rank > max((risk.rank for risk in risks), default=Risk.DESTRUCTIVE.rank)
    if covered:
        message = f"run {busy.run_id} ({busy.remediation}) does something stronger to this target"
        return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.COVERED, message=message)
    message = f"run {busy.run_id} ({busy.remediation}) works on this target"
    return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.TARGET_BUSY, message=message)
