"""The contract of a guard: facts in, one decision out; pure, so that the same facts always get the same answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from app.domain.decisions import Decision
from app.domain.durations import Rate
from app.domain.plans import Plan
from app.domain.remediation import Mode, Remediation
from app.domain.scope import Scope


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known at the moment of a decision; fields about the target are None before planning."""

    now: datetime
    remediation: Remediation
    ceiling: Mode
    scope: Scope
    alert_starts_at: datetime
    attempt: int
    admitted: bool  # the run was admitted before: this is a further rung of it
    approved_by: str | None = None
    rate_full: tuple[Rate, datetime] | None = None
    global_rate_full: tuple[Rate, datetime] | None = None
    targets_in_work: int = 0
    plan: Plan | None = None
    target_templated: bool = False
    last_outcome: tuple[datetime, str] | None = None  # when the last run that acted on the target ended, and its id
    holder: tuple[str, str] | None = None  # run id and remediation that work on the target now

    @property
    def mode(self) -> Mode:
        """The remediation's mode under the global ceiling."""
        return min(self.remediation.mode, self.ceiling, key=lambda mode: mode.rank)


Guard = Callable[[Facts], Decision]
