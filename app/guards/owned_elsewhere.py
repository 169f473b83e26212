"""Does something else own the target's state now: a rollout under way, a pause, an autoscaler?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.guards.base import Facts

_GUARD = "owned_elsewhere"


def owned_elsewhere(facts: Facts) -> Decision:
    """Defer for an obstacle that passes by itself, deny for any other."""
    conditions = [] if facts.plan is None else [found for step in facts.plan.steps for found in step.conditions]
    if not conditions:
        return allow(_GUARD)
    worst = min(conditions, key=lambda condition: condition.passes)
    verdict = Verdict.DEFER if worst.passes else Verdict.DENY
    return Decision(guard=_GUARD, verdict=verdict, reason=worst.reason, message=worst.message)
