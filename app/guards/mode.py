"""How far may this go by itself: the remediation's mode under the global ceiling."""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.domain.remediation import Mode
from app.guards.base import Facts


def mode(facts: Facts) -> Decision:
    """Stop at showing the plan if the mode is observe; an undo or revert that has not begun waits."""
    if facts.mode is not Mode.OBSERVE:
        return allow("mode", f"mode is {facts.mode}")
    if not facts.is_remedy and not facts.admitted:
        message = f"the {facts.purpose} is still owed: it is done once the service runs without --mode observe"
        return Decision(guard="mode", verdict=Verdict.DEFER, reason=Reason.MODE_OBSERVE, message=message)
    whose = "the earned mode"
    if facts.ceiling is Mode.OBSERVE:
        whose = "the global ceiling (--mode)"
    if facts.remediation.mode is Mode.OBSERVE:
        whose = "the remediation's mode"
    message = f"{whose} is observe: the plan is only shown"
    return Decision(guard="mode", verdict=Verdict.OBSERVE, reason=Reason.MODE_OBSERVE, message=message)
