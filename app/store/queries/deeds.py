"""The steps of runs in words, done or planned: one line a step, for lists of many runs. Only reads."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Row

from app.domain.remediation import Purpose
from app.domain.wording import deed, one_line
from app.store.db.connection import AsyncConnection
from app.store.db.dialects import planned_summaries
from app.store.db.schema import run, step
from app.store.ledger.runs import Run

_LONGEST_SUMMARY = 500
_AT_ONCE = 25  # runs, of which each may have steps of many kilobytes: others have their turn in between


@dataclass(frozen=True, slots=True)
class Deeds:
    """The steps that a run did; for a run that did nothing, the planned steps."""

    done: list[str] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)


async def of_runs(tx: AsyncConnection, runs: Sequence[Row[Any] | Run]) -> dict[str, Deeds]:
    """Read the deeds of the given runs, or rows of runs."""
    found: dict[str, Deeds] = {}
    for start in range(0, len(runs), _AT_ONCE):
        found |= await _of_some(tx, runs[start : start + _AT_ONCE])
        await asyncio.sleep(0)
    return found


async def _of_some(tx: AsyncConnection, runs: Sequence[Row[Any] | Run]) -> dict[str, Deeds]:
    found = {row.id: Deeds() for row in runs}
    takes_back = {row.id for row in runs if row.purpose != Purpose.REMEDY}
    columns = (step.c.run_id, step.c.planned, step.c.state, step.c.result, step.c.error)
    query = select(*columns).where(step.c.run_id.in_(found)).order_by(step.c.run_id, step.c.rung, step.c.position)
    for row in (await tx.execute(query)).all():
        found[row.run_id].done.append(of_step(row, takes_back=row.run_id in takes_back))
    idle = [run_id for run_id, one in found.items() if not one.done]
    for run_id, summaries in await _planned(tx, idle):
        found[run_id].planned.extend(one_line(one, _LONGEST_SUMMARY) for one in summaries)
    return found


async def _planned(tx: AsyncConnection, run_ids: Collection[str]) -> list[tuple[str, list[str]]]:
    if not run_ids:
        return []
    summaries = planned_summaries(tx.dialect, run).label("summaries")
    query = select(run.c.id, summaries).where(run.c.id.in_(run_ids), run.c.plan.is_not(None))
    return [(row.id, row.summaries) for row in await tx.execute(query)]


def of_step(row: Row[Any], *, takes_back: bool) -> str:
    """Describe one recorded step; a run that takes another one back goes from the reached state to the one before."""
    planned: Mapping[str, Any] = row.planned
    if takes_back:
        planned = {**planned, "before": planned.get("desired"), "desired": planned.get("before")}
    return deed(planned, row.state, row.result, row.error)


def of_plan(plan: Mapping[str, Any]) -> list[str]:
    """The steps of a stored plan that would change something."""
    return [one_line(one["summary"], _LONGEST_SUMMARY) for one in plan["steps"] if one.get("changes", True)]
