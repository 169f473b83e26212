"""What may stand in a run's way and is kept in the store: pauses, other runs, breakers, storms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.domain.remediation import Risk


@dataclass(frozen=True, slots=True)
class Hold:
    """A pause that stands: on everything, one remediation or one target."""

    scope: str  # all | remediation | target
    holder: str
    why: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Busy:
    """The run that works on the target now."""

    run_id: str
    remediation: str
    risk: Risk


@dataclass(frozen=True, slots=True)
class Breaker:
    """Failures in a row of one remediation, and what became of it."""

    failures: int = 0
    opened_at: datetime | None = None
    trial_at: datetime | None = None  # when one run may be tried
    trial: str | None = None  # the run that is being tried


@dataclass(frozen=True, slots=True)
class Storm:
    """Too many alerts at once: one that stands, or that this decision finds."""

    remediation: str  # empty: over all remediations
    message: str
    until: datetime
