"""Does the target rest after the last action on it?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.durations import format_duration
from app.domain.reasons import Reason
from app.guards.base import Facts


def cooldown(facts: Facts) -> Decision:
    """Defer until the quiet time after the last outcome is over; a further rung belongs to the same run.

    A run that takes another one back follows it at once.
    """
    if facts.last_outcome is None or facts.admitted or not facts.is_remedy:
        return allow("cooldown")
    ended_at, run_id = facts.last_outcome
    quiet = facts.remediation.limits.cooldown
    until = ended_at + quiet
    if facts.now >= until:
        return allow("cooldown")
    message = f"run {run_id} on this target ended less than {format_duration(quiet)} ago"
    return Decision(guard="cooldown", verdict=Verdict.DEFER, reason=Reason.COOLDOWN, message=message, until=until)
