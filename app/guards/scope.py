"""Is the target inside the border that no alert can move?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.guards.base import Facts


def scope(facts: Facts) -> Decision:
    """Deny a target out of scope; waiting would not bring it in."""
    if facts.plan is None:
        return allow("scope", "the target is not known yet")
    objection = facts.scope.plan_objection(facts.plan)
    if objection is None:
        return allow("scope")
    return Decision(guard="scope", verdict=Verdict.DENY, reason=Reason.OUT_OF_SCOPE, message=objection)
