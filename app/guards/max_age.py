"""Is it too late: has the alert been firing for longer than the remediation is meant for?"""

from __future__ import annotations

from datetime import timedelta

from app.domain.decisions import Decision, Verdict, allow
from app.domain.durations import format_duration
from app.domain.reasons import Reason
from app.guards.base import Facts


def max_age(facts: Facts) -> Decision:
    """Deny an alert older than `max_age`; a run that has begun, or tried a rung, may go on, at least to page."""
    age = facts.now - facts.alert_starts_at
    allowed = facts.remediation.max_age
    if age <= allowed or facts.admitted or facts.rung > 0 or not facts.is_remedy:
        return allow("max_age")
    age = timedelta(seconds=int(age.total_seconds()))
    message = f"the alert began {format_duration(age)} ago, the remediation's max_age is {format_duration(allowed)}"
    return Decision(guard="max_age", verdict=Verdict.DENY, reason=Reason.MAX_AGE, message=message)
