"""Is it too late: has the alert been firing for longer than the remediation is meant for?"""

from __future__ import annotations

from datetime import timedelta

from app.domain.decisions import Decision, Verdict, allow
from app.domain.durations import format_duration
from app.domain.reasons import Reason
from app.guards.base import Facts


def late(facts: Facts) -> Decision:
    """Deny acting on an alert that began before `expires` ago; a run that has begun may go on, at least to page."""
    age = facts.now - facts.alert_starts_at
    expires = facts.remediation.expires
    if age <= expires or facts.admitted or not facts.is_remedy:
        return allow("late")
    age = timedelta(seconds=int(age.total_seconds()))
    message = f"the alert began {format_duration(age)} ago, the remediation expires after {format_duration(expires)}"
    return Decision(guard="late", verdict=Verdict.DENY, reason=Reason.LATE, message=message)
