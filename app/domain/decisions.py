"""The answers of guards."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from app.domain.model import Value
from app.domain.reasons import Reason


class Verdict(StrEnum):
    """A guard's answer; from harmless to final."""

    ALLOW = "allow"
    OBSERVE = "observe"  # go no further than showing the plan
    NEEDS_APPROVAL = "needs_approval"
    DEFER = "defer"
    DENY = "deny"


class Decision(Value):
    """One guard's answer, kept with the run."""

    guard: str
    verdict: Verdict
    reason: Reason | None = None
    message: str = ""
    until: datetime | None = None  # DEFER: when to decide again; None: as soon as something changes, at the latest soon


def allow(guard: str, message: str = "") -> Decision:
    """The guard has no objection."""
    return Decision(guard=guard, verdict=Verdict.ALLOW, message=message)
