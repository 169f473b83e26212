"""Is there nothing to do yet, and will time change that: is nothing old enough for an action that selects by age?"""

from __future__ import annotations

from datetime import timedelta

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.domain.remediation import Switchable
from app.guards.base import Facts

_GUARD = "not_yet"
_SOONEST = timedelta(seconds=1)  # clocks differ, and no replica is to ask without a pause


def not_yet(facts: Facts) -> Decision:
    """Defer until there may be something to do, at the longest until the alert is too old; nothing is counted."""
    if facts.not_yet is None:
        return allow(_GUARD)
    until = facts.not_yet.at
    if until is not None:
        too_old_at = facts.alert_starts_at + facts.remediation.max_age + _SOONEST
        if too_old_at > facts.now and Switchable.MAX_AGE not in facts.remediation.without_guards:
            until = min(until, too_old_at)
        until = max(until, facts.now + _SOONEST)
    message = facts.not_yet.message
    return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.NOT_YET, message=message, until=until)
