"""Has a person put remediations on hold: all of them, this one, or all on this target?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.obstacles import Hold
from app.domain.reasons import Reason
from app.guards.base import Facts


def paused(facts: Facts) -> Decision:
    """Defer until the last hold ends; a step that is under way goes on, a further rung waits."""
    if not facts.holds:
        return allow("paused")
    until = (
        None
        if any(hold.until is None for hold in facts.holds)
        else max(hold.until for hold in facts.holds if hold.until)
    )
    message = "; ".join(_told(hold) for hold in facts.holds)
    return Decision(guard="paused", verdict=Verdict.DEFER, reason=Reason.PAUSED, message=message, until=until)


def _told(hold: Hold) -> str:
    what = {"all": "everything is", "remediation": "this remediation is", "target": "this target is"}[hold.scope]
    end = f" until {hold.until:%Y-%m-%d %H:%M:%S} UTC" if hold.until else ""
    return f"{what} paused by {hold.holder}{end}: {hold.why}"
