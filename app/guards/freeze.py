"""Is this a time at which nothing is to be changed?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.guards.base import Facts


def freeze(facts: Facts) -> Decision:
    """Defer until the freeze window ends; a further rung of a run that has begun may go on."""
    if facts.freeze is None or facts.admitted:
        return allow("freeze")
    name, until = facts.freeze
    message = f"freeze {name} (until {until:%Y-%m-%d %H:%M:%S} UTC)"
    return Decision(guard="freeze", verdict=Verdict.DEFER, reason=Reason.FROZEN, message=message, until=until)
