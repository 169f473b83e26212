"""Does another run work on the target, or on as many targets as this remediation may touch at once?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.guards.base import Facts

_GUARD = "target_busy"


def target_busy(facts: Facts) -> Decision:
    """Defer until the other run ends; its end wakes this one."""
    if facts.holder is not None:
        run_id, remediation = facts.holder
        message = f"run {run_id} ({remediation}) works on this target"
        return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.TARGET_BUSY, message=message)
    limit = facts.remediation.limits.max_targets
    if limit is not None and not facts.admitted and facts.targets_in_work >= limit:
        message = f"{facts.targets_in_work} targets are in work, max_targets is {limit}"
        return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.TOO_MANY_TARGETS, message=message)
    return allow(_GUARD)
