"""Has this episode been tried often enough?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.guards.base import Facts


def attempts(facts: Facts) -> Decision:
    """Deny the attempt after the last one."""
    limit = facts.remediation.limits.attempts
    if facts.attempt <= limit or not facts.is_remedy:
        return allow("attempts", f"attempt {facts.attempt} of {limit}")
    message = f"attempt {facts.attempt} of at most {limit} for this episode"
    return Decision(guard="attempts", verdict=Verdict.DENY, reason=Reason.ATTEMPTS_EXHAUSTED, message=message)
