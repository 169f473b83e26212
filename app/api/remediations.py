"""The audit of runs: their steps, reasons and results. Only reads; people's decisions are in `app.api.decisions`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.api.auth import Viewer
from app.api.formats import LIST_RESPONSES, negotiate, render
from app.api.models import EpisodeAnswer, EventAnswer, Events, RunDetail, RunItem, RunPage, StepAnswer
from app.api.problems import errors
from app.api.query import RunQuery, cursor
from app.api.services import Served
from app.domain import former_names
from app.domain.errors import NotFoundError
from app.domain.model import JsonObject
from app.domain.remediation import Purpose
from app.store.db.connection import AsyncConnection
from app.store.ledger import runs
from app.store.queries import deeds, search
from app.store.queries.search import RunRecord

RunId = Annotated[UUID, Path(description="The run's id.")]
_MOVED: dict[int | str, dict[str, Any]] = {308: {"description": "The run joined another one: `Location` leads to it."}}
router = APIRouter(tags=["remediations"])


@router.get(
    "/remediations",
    operation_id="listRemediations",
    summary="List runs, newest first",
    response_model=RunPage,
    responses={**LIST_RESPONSES, **errors(401, 403, 422, 503)},
)
async def list_runs(request: Request, services: Served, _who: Viewer, query: Annotated[RunQuery, Query()]) -> Response:
    """Filters narrow the list together. Role: viewer."""
    async with services.database.browse() as tx:
        page = await page_of_runs(tx, query, services.clock())
    return render(request, page, negotiate(request, query.format))


async def page_of_runs(tx: AsyncConnection, query: RunQuery, now: datetime) -> RunPage:
    """Return the runs of a query, each with its steps in words."""
    found = await search.find_runs(tx, query.wanted(now), query.page)
    did = await deeds.of_runs(tx, found.rows)
    items = [
        RunItem.model_validate({**row._mapping, "done": did[row.id].done, "planned": did[row.id].planned})  # noqa: SLF001 - SQLAlchemy's public name
        for row in found.rows
    ]
    return RunPage(items=items, next=None if found.before is None else cursor(found.before))


@router.get(
    "/remediations/{run_id}",
    operation_id="getRemediation",
    summary="Show one run: plan, decisions, steps with before and after, alerts, events",
    response_model=RunDetail,
    responses={**_MOVED, **errors(401, 403, 404, 422, 503)},
)
async def show_run(services: Served, _who: Viewer, run_id: RunId) -> RunDetail | RedirectResponse:
    """Everything that is known of a run. Role: viewer."""
    async with services.database.browse() as tx:
        record = await search.read_run(tx, str(run_id))
        survivor = await runs.folded_into(tx, str(run_id)) if record is None else None
    if survivor is not None:
        return RedirectResponse(f"/remediations/{survivor}", status_code=308)
    if record is None:
        raise NotFoundError(f"there is no run {run_id}")
    return _detail(record)


@router.get(
    "/remediations/{run_id}/events",
    operation_id="listRemediationEvents",
    summary="List the audit events of one run, oldest first",
    responses=errors(401, 403, 404, 422, 503),
)
async def list_events(services: Served, _who: Viewer, run_id: RunId) -> Events:
    """A run that joined another one keeps its own events. Role: viewer."""
    async with services.database.browse() as tx:
        rows = await search.events(tx, str(run_id))
    if not rows:
        raise NotFoundError(f"there is no run {run_id}")
    return Events(items=[EventAnswer.model_validate(row) for row in rows])


def _detail(record: RunRecord) -> RunDetail:
    parts = {
        "spec": former_names.specification(record.run.spec),
        "decisions": [former_names.decision(one) for one in record.run.decisions],
        "steps": _steps(record),
        **_deeds(record),
        "episodes": [EpisodeAnswer.model_validate(row) for row in record.episodes],
        "events": [EventAnswer.model_validate(row) for row in record.events],
    }
    return RunDetail.model_validate({**record.run._mapping, **parts})  # noqa: SLF001 - SQLAlchemy's public name


def _deeds(record: RunRecord) -> dict[str, list[str]]:
    takes_back = record.run.purpose != Purpose.REMEDY
    done = [deeds.of_step(row, takes_back=takes_back) for row in record.steps]
    return {"done": done, "planned": [] if done or not record.run.plan else deeds.of_plan(record.run.plan)}


def _steps(record: RunRecord) -> list[StepAnswer]:
    """The steps of all rungs that have begun, then those of the present plan that have not."""
    begun = [StepAnswer.model_validate(row).model_copy(update=_shown(row.planned)) for row in record.steps]
    places = {(step.rung, step.position) for step in begun}
    plan = record.run.plan or {"rung": 0, "steps": []}
    waiting = [
        StepAnswer(rung=plan["rung"], position=position, action=step["action"], state="planned", **_shown(step))
        for position, step in enumerate(plan["steps"])
        if (plan["rung"], position) not in places
    ]
    return begun + waiting


def _shown(planned: JsonObject) -> JsonObject:
    return {key: planned[key] for key in ("summary", "params", "before", "desired") if key in planned}
