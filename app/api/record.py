"""The track record of remediations, in the form of the catalog's routes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import Field

from app.api.models import Answer
from app.domain.findings import Result
from app.domain.obstacles import Breaker, BreakerState
from app.domain.remediation import Mode, Remediation
from app.domain.states import FINAL_STATES, RunState
from app.engine.outcomes.earned_mode import present
from app.store.db.connection import AsyncConnection
from app.store.gates import breakers, earned_modes
from app.store.gates import pauses as holds
from app.store.queries import track_record
from app.store.queries.track_record import SPAN


class Summary(Answer):
    """A remediation's record in short, over the runs of the last 30 days that answered an alert."""

    runs: int = Field(description="That have ended, observed and denied ones included.")
    success_rate: float | None = Field(
        description="Of the runs that succeeded, failed or were interrupted, the share that succeeded."
    )
    effectiveness: float | None = Field(description="The share after which the alert resolved; null while unknown.")
    breaker: BreakerState
    earned: Mode | None = Field(description="The mode that it has earned so far; null where it need not earn any.")
    paused: bool = Field(description="Whether a pause of it, or of everything, stands.")


class LastRun(Answer):
    """The newest run."""

    id: str
    state: RunState
    reason: str | None
    created_at: datetime


class BreakerAnswer(Answer):
    """The breaker now."""

    state: BreakerState
    failures: int = Field(description="Failed or ineffective runs in a row.")
    opened_at: datetime | None
    trial_at: datetime | None = Field(description="When one run may be tried.")
    trial: str | None = Field(description="The run that is being tried.")


class StandingAnswer(Answer):
    """How far it has come."""

    mode: Mode
    since: datetime
    good: int = Field(description="Good runs in a row, since it came to this mode.")
    bad: int = Field(description="Bad runs in a row, since it came to this mode.")


class HoldAnswer(Answer):
    """A pause that keeps it from acting."""

    scope: str
    holder: str
    why: str
    since: datetime
    until: datetime | None


class Record(Answer):
    """A remediation's record, over the last 30 days."""

    since: datetime
    states: dict[RunState, int] = Field(description="Runs by final state.")
    success_rate: float | None = Field(
        description="Of the runs that succeeded, failed or were interrupted, the share that succeeded."
    )
    effective: int = Field(description="Runs after which the alert resolved in time.")
    ineffective: int = Field(description="Runs after which it did not.")
    effectiveness: float | None
    median_seconds: float | None = Field(description="From the alert's start to its end, of the runs that helped.")
    p90_seconds: float | None = Field(description="The same: nine of ten were not slower.")
    recurrences: int = Field(description="Alerts that fired again within a day after a run that had helped.")
    last_run: LastRun | None
    breaker: BreakerAnswer
    standing: StandingAnswer | None = Field(description="Null where it need not earn its mode.")
    pauses: list[HoldAnswer] = Field(description="That keep it from acting now.")


class FindingAnswer(Answer):
    """One thing that the preflight looked at."""

    subject: str
    result: Result
    message: str


class Preflight(Answer):
    """Whether it could run, as this replica last found out."""

    result: Result
    at: datetime
    findings: list[FindingAnswer]


async def summaries(tx: AsyncConnection, remediations: Mapping[str, Remediation], now: datetime) -> dict[str, Summary]:
    """The records of a catalog in short."""
    found = await track_record.tallies(tx, remediations, now - SPAN)
    open_now, known = await breakers.get_all(tx), await earned_modes.get_all(tx)
    paused = [(row.scope, row.subject) for row in await holds.standing(tx, now)]

    def of(name: str, remediation: Remediation) -> Summary:
        tally, standing = found[name], present(remediation, known.get(name), now)
        return Summary(
            runs=sum(tally.states.values()),
            success_rate=tally.success_rate,
            effectiveness=tally.effectiveness,
            breaker=open_now.get(name, Breaker()).state(now),
            earned=None if standing is None else standing.mode,
            paused=any(held in {("all", ""), _key(name)} for held in paused),
        )

    return {name: of(name, remediation) for name, remediation in remediations.items()}


async def record(tx: AsyncConnection, remediation: Remediation, now: datetime) -> Record:
    """Everything about one remediation."""
    name, since = remediation.name, now - SPAN
    tally = (await track_record.tallies(tx, [name], since))[name]
    times = await track_record.times_to_resolve(tx, name, since)
    breaker = await breakers.get(tx, name)
    last = await track_record.last_run(tx, name)
    standing = present(remediation, await earned_modes.get(tx, name), now)
    concern = {("all", ""), _key(name)}
    rows = [row for row in await holds.standing(tx, now) if (row.scope, row.subject) in concern]
    return Record(
        since=since,
        states={state: tally.states.get(state, 0) for state in RunState if state in FINAL_STATES},
        success_rate=tally.success_rate,
        effective=tally.effective,
        ineffective=tally.ineffective,
        effectiveness=tally.effectiveness,
        median_seconds=_quantile(times, 0.5),
        p90_seconds=_quantile(times, 0.9),
        recurrences=await track_record.recurrences(tx, name, since),
        last_run=None if last is None else LastRun.model_validate(last),
        breaker=BreakerAnswer(
            state=breaker.state(now),
            failures=breaker.failures,
            opened_at=breaker.opened_at,
            trial_at=breaker.trial_at,
            trial=breaker.trial,
        ),
        standing=None if standing is None else StandingAnswer.model_validate(standing),
        pauses=[HoldAnswer.model_validate(row) for row in rows],
    )


def _key(name: str) -> tuple[str, str]:
    return "remediation", name


def _quantile(ordered: Sequence[int], share: float) -> float | None:
    """Seconds: the smallest of the microseconds that at least this share of them does not exceed."""
    if not ordered:
        return None
    return max(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 0) / 1_000_000
