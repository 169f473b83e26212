"""The track record of remediations: how their runs ended, whether they helped, how fast. Only reads.

Each question is one query that an index answers without reading the runs themselves, which are wide.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, and_, func, not_, select, type_coerce

from app.domain.ids import lowest_id
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.store.db.connection import AsyncConnection
from app.store.db.schema import episode, run, run_episode
from app.store.ledger.effectiveness import RECURS_WITHIN

SPAN = timedelta(days=30)
_ENDS = tuple(state for state in RunState if state.is_final)
_COUNTS = [
    *(func.count().filter(run.c.state == state) for state in _ENDS),
    func.count().filter(run.c.effective),
    func.count().filter(not_(run.c.effective)),
]


@dataclass
class Tally:
    """How the runs of one remediation ended that answered an alert."""

    states: dict[RunState, int] = field(default_factory=dict)
    effective: int = 0
    ineffective: int = 0

    @property
    def success_rate(self) -> float | None:
        """Of the runs that succeeded or failed, the share that succeeded; None where there is none."""
        good = self.states.get(RunState.SUCCEEDED, 0)
        bad = self.states.get(RunState.FAILED, 0) + self.states.get(RunState.INTERRUPTED, 0)
        return good / (good + bad) if good + bad else None

    @property
    def effectiveness(self) -> float | None:
        """The share of runs with a known result after which the alert resolved in time."""
        known = self.effective + self.ineffective
        return self.effective / known if known else None


async def tallies(tx: AsyncConnection, names: Collection[str], since: datetime) -> dict[str, Tally]:
    """Return the tally of each of the given remediations, over the runs recorded since then."""
    # Grouped in the order of the index: by states, too, SQLite would sort all runs first.
    query = select(run.c.remediation, *_COUNTS).where(_of(names, since)).group_by(run.c.remediation)
    found = {name: Tally() for name in names}
    for name, *ends, effective, ineffective in await tx.execute(query):
        states = {state: runs for state, runs in zip(_ENDS, ends, strict=True) if runs}
        found[name] = Tally(states, effective, ineffective)
    return found


async def times_to_resolve(tx: AsyncConnection, name: str, since: datetime) -> Sequence[int]:
    """Microseconds from the alert's start to its end, for each run that helped; shortest first."""
    took = type_coerce(run.c.resolved_at, BigInteger) - type_coerce(run.c.alert_starts_at, BigInteger)
    query = select(took).where(_of([name], since), run.c.effective, run.c.resolved_at.is_not(None))
    return sorted((await tx.execute(query)).scalars().all())


async def recurrences(tx: AsyncConnection, name: str, since: datetime) -> int:
    """How many alerts fired again within a day after a run that had helped."""
    back = episode.alias("back")
    until = type_coerce(run.c.resolved_at, BigInteger) + RECURS_WITHIN // timedelta(microseconds=1)
    again = and_(
        back.c.identity == episode.c.identity,
        back.c.id > episode.c.id,
        back.c.first_seen_at >= run.c.resolved_at,
        type_coerce(back.c.first_seen_at, BigInteger) <= until,
    )
    links = run.join(run_episode).join(episode).join(back, again)
    query = select(func.count(back.c.id.distinct())).select_from(links).where(_of([name], since), run.c.effective)
    return int((await tx.execute(query)).scalar_one())


async def last_run(tx: AsyncConnection, name: str) -> Any:
    """The newest run (id, state, reason, created_at) that answers an alert."""
    columns = (run.c.id, run.c.state, run.c.reason, run.c.created_at)
    query = select(*columns).where(run.c.remediation == name, run.c.purpose == Purpose.REMEDY)
    return (await tx.execute(query.order_by(run.c.id.desc()).limit(1))).one_or_none()


def _of(names: Collection[str], since: datetime) -> Any:
    return and_(run.c.remediation.in_(names), run.c.id >= lowest_id(since), run.c.purpose == Purpose.REMEDY)
