"""Does the target rest after what was last done to it?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.durations import format_duration
from app.domain.reasons import Reason
from app.guards.base import Facts


def cooldown(facts: Facts) -> Decision:
    """Defer until the quiet time after the last outcome is over; a further rung belongs to the same run."""
    if facts.last_outcome_at is None or facts.admitted:
        return allow("cooldown")
    quiet = facts.remediation.limits.cooldown
    until = facts.last_outcome_at + quiet
    if facts.now >= until:
        return allow("cooldown")
    message = f"the last run on this target ended less than {format_duration(quiet)} ago"
    return Decision(guard="cooldown", verdict=Verdict.DEFER, reason=Reason.COOLDOWN, message=message, until=until)
