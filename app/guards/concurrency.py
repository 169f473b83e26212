"""Is as much being worked on already as may be at once: by this remediation, or over all?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.guards.base import Facts

_GUARD = "concurrency"


def concurrency(facts: Facts) -> Decision:
    """Defer until one of the others ends, which wakes this one."""
    if facts.admitted or not facts.is_remedy:
        return allow(_GUARD)
    limit = facts.remediation.limits.max_targets
    if limit is not None and facts.targets_in_work >= limit:
        message = f"{facts.targets_in_work} targets are in work, max_targets is {limit}"
        return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.TOO_MANY_TARGETS, message=message)
    if facts.runs_in_work >= facts.concurrency:
        message = f"{facts.runs_in_work} runs are in work, the setting concurrency is {facts.concurrency}"
        return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.CONCURRENCY, message=message)
    return allow(_GUARD)
