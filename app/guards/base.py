"""The contract of a guard: facts in, one decision out; pure, so that the same facts always get the same answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.decisions import Decision
from app.domain.durations import Rate
from app.domain.external_facts import Freshness, Population
from app.domain.obstacles import Breaker, Hold, Storm, TargetHolder
from app.domain.plans import NotYet, Plan
from app.domain.remediation import Mode, Purpose, Remediation
from app.domain.scope import Border


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts at the moment of a decision; fields about the target are None before planning."""

    now: datetime
    remediation: Remediation
    ceiling: Mode
    scope: Border
    alert_starts_at: datetime
    attempt: int
    admitted: bool  # the run was admitted before: this is a further rung of it
    run_id: str = ""
    rung: int = 0
    purpose: Purpose = Purpose.REMEDY
    approved_by: str | None = None
    earned: Mode | None = None  # as far as its record lets it; None: it need not earn its mode
    holds: tuple[Hold, ...] = ()
    freeze: tuple[str, datetime] | None = None  # the freeze that holds now, and its end
    freshness: Freshness | None = None  # None: no Alertmanager is configured, or it is not asked yet
    breaker: Breaker = field(default_factory=Breaker)
    rate_full: tuple[Rate, datetime] | None = None
    target_rate_full: tuple[Rate, datetime] | None = None
    global_rate_full: tuple[Rate, datetime] | None = None
    targets_in_work: int = 0
    runs_in_work: int = 0
    concurrency: int = 10
    storms: tuple[Storm, ...] = ()  # that stand, or that the alerts of this moment make
    population: Population | None = None
    plan: Plan | None = None
    not_yet: NotYet | None = None  # the answer of the plan's steps, if none has anything to do yet
    last_outcome: tuple[datetime, str] | None = None  # when the last run that acted on the target ended, and its id
    holder: TargetHolder | None = None

    @property
    def mode(self) -> Mode:
        """Return the remediation's mode, under the global ceiling and its earned mode."""
        modes = [self.remediation.mode, self.ceiling, *([] if self.earned is None else [self.earned])]
        return min(modes, key=lambda mode: mode.rank)

    @property
    def is_remedy(self) -> bool:
        """Say whether this run answers an alert; a run that takes another one back has no limits of alerts."""
        return self.purpose is Purpose.REMEDY


Guard = Callable[[Facts], Decision]
