"""Obstacles of a run that the store keeps: pauses, other runs, breakers, storms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.domain.remediation import Risk


@dataclass(frozen=True, slots=True)
class Hold:
    """A pause that stands: on everything, one remediation or one target."""

    scope: str  # all | remediation | target
    holder: str
    why: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class TargetHolder:
    """The run that works on the target now."""

    run_id: str
    remediation: str
    risk: Risk


class BreakerState(StrEnum):
    """Whether a breaker lets runs through."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"  # one run may be tried, or is
    OPEN = "open"

    @property
    def rank(self) -> int:
        """How far it is open, as the metric says it."""
        return list(BreakerState).index(self)


@dataclass(frozen=True, slots=True)
class Breaker:
    """Failures in a row of one remediation, and their result."""

    failures: int = 0
    opened_at: datetime | None = None
    trial_at: datetime | None = None  # when one run may be tried
    trial: str | None = None  # the run that is being tried

    def state(self, now: datetime) -> BreakerState:
        """Say how far the breaker lets runs through at this moment."""
        if self.opened_at is None:
            return BreakerState.CLOSED
        is_due = self.trial_at is not None and now >= self.trial_at
        return BreakerState.HALF_OPEN if self.trial is not None or is_due else BreakerState.OPEN


@dataclass(frozen=True, slots=True)
class Storm:
    """Too many alerts at once: one that stands, or that this decision finds."""

    remediation: str  # empty: over all remediations
    message: str
    until: datetime
