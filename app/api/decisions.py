"""People's decisions about runs: approve, reject or cancel a waiting one, retry or undo an ended one."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.api.auth import Approver
from app.api.json_body import body_of, read_given, storable
from app.api.models import RunSummary
from app.api.problems import errors
from app.api.remediations import RunId
from app.api.services import Served, Services
from app.domain.errors import ConflictError, NotFoundError
from app.domain.remediation import Purpose
from app.engine.outcomes import undo as undoing
from app.engine.outcomes.effectiveness import learn_word
from app.engine.outcomes.retry import decide_again
from app.engine.stages.between_steps import check_ceiling
from app.store.audit.chain import Entry
from app.store.db.connection import AsyncConnection
from app.store.db.rerun import rerun
from app.store.ledger import approvals, episodes, runs
from app.store.ledger.approvals import Decided, DecisionKind, HumanDecision
from app.store.queries import search

_ERRORS = errors(400, 401, 403, 404, 409, 413, 415, 422, 503)
router = APIRouter(tags=["remediations"])


class Remark(BaseModel):
    """A person's comment to a decision; kept in the audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    comment: Annotated[str, AfterValidator(storable)] = Field(default="", max_length=1000)


Question = Annotated[
    str, Query(max_length=60, description="Which plan is meant, as the question names it; another one is not approved.")
]


@router.post(
    "/remediations/{run_id}/approve",
    operation_id="approveRemediation",
    summary="Approve a run that awaits it",
    responses=_ERRORS,
    openapi_extra=body_of(Remark, required=False),
)
async def approve(
    request: Request, services: Served, who: Approver, run_id: RunId, question: Question = ""
) -> RunSummary:
    """All guards decide once more at this moment; then it runs. Role: approver."""
    return await _decide(
        request, services, str(run_id), HumanDecision(DecisionKind.APPROVE, who.name, question=question)
    )


@router.post(
    "/remediations/{run_id}/reject",
    operation_id="rejectRemediation",
    summary="Reject a run that awaits approval",
    responses=_ERRORS,
    openapi_extra=body_of(Remark, required=False),
)
async def reject(request: Request, services: Served, who: Approver, run_id: RunId) -> RunSummary:
    """The run ends as denied. Role: approver."""
    return await _decide(request, services, str(run_id), HumanDecision(DecisionKind.REJECT, who.name))


@router.post(
    "/remediations/{run_id}/cancel",
    operation_id="cancelRemediation",
    summary="Cancel a run that is pending, deferred or awaiting approval",
    responses=_ERRORS,
    openapi_extra=body_of(Remark, required=False),
)
async def cancel(request: Request, services: Served, who: Approver, run_id: RunId) -> RunSummary:
    """The run ends as cancelled; a step that is under way is never cut off. Role: approver."""
    return await _decide(request, services, str(run_id), HumanDecision(DecisionKind.CANCEL, who.name))


@router.post(
    "/remediations/{run_id}/retry",
    status_code=HTTPStatus.CREATED,
    operation_id="retryRemediation",
    summary="Have the alert of an ended run decided again, while it fires",
    responses=_ERRORS,
    openapi_extra=body_of(Remark, required=False),
)
async def retry(request: Request, services: Served, who: Approver, run_id: RunId) -> RunSummary:
    """The answer is the new run. It passes every guard, by the catalog as it is now. Role: approver."""
    remark = await read_given(request, Remark)
    said = f"asked for by {who.name} after run {run_id}" + (f": {remark.comment}" if remark.comment else "")
    summary = await _retry(services, str(run_id), Entry(said, actor=who.name, data={"after": str(run_id)}))
    services.work.set()
    return summary


@rerun
async def _retry(services: Services, run_id: str, entry: Entry) -> RunSummary:
    async with services.parts.turn(lock="intake") as turn:
        again = await decide_again(turn.tx, run_id, services.catalog.current, entry, turn.now)
        return await _summary(turn.tx, again.id)


@router.post(
    "/remediations/{run_id}/undo",
    status_code=HTTPStatus.CREATED,
    operation_id="undoRemediation",
    summary="Take back the changes of an ended run",
    responses=_ERRORS,
    openapi_extra=body_of(Remark, required=False),
)
async def undo(request: Request, services: Served, who: Approver, run_id: RunId) -> RunSummary:
    """The answer is the run that does it, whether the alert fires or not.

    Later changes of others are left alone, and said.

    Role: approver.
    """
    remark = await read_given(request, Remark)
    said = f"asked for by {who.name}" + (f": {remark.comment}" if remark.comment else "")
    data = {"comment": remark.comment} if remark.comment else {}
    summary = await _undo(services, str(run_id), Entry(said, actor=who.name, data=data))
    services.work.set()
    return summary


@rerun
async def _undo(services: Services, run_id: str, entry: Entry) -> RunSummary:
    async with services.parts.turn() as turn:
        new = await undoing.ask(turn.tx, run_id, entry, turn.now)
        return await _summary(turn.tx, new.id)


async def _decide(request: Request, services: Services, run_id: str, word: HumanDecision) -> RunSummary:
    remark = await read_given(request, Remark)
    decided, summary = await _said(services, run_id, replace(word, comment=remark.comment))
    if summary.state.is_final:
        _count(services, summary, helped=decided.helped)
    services.work.set()
    if decided.refused:
        raise ConflictError(decided.refused)
    return summary


@rerun
async def _said(services: Services, run_id: str, word: HumanDecision) -> tuple[Decided, RunSummary]:
    async with services.parts.turn() as turn:
        tx, now = turn.tx, turn.now
        if word.verb is DecisionKind.APPROVE:
            check_ceiling(services.parts, await runs.get(tx, run_id))
        decided = await approvals.decide(tx, run_id, word, now)
        await learn_word(turn, decided.run, rejected=word.verb is DecisionKind.REJECT, helped=decided.helped)
        if decided.run.state.is_final and not await episodes.any_open(tx, run_id):
            await undoing.give_back_after(tx, now, decided.run)
        return decided, await _summary(tx, run_id)


async def _summary(tx: AsyncConnection, run_id: str) -> RunSummary:
    """The run as this transaction leaves it."""
    record = await search.read_run(tx, run_id)
    if record is None:
        raise NotFoundError(f"there is no run {run_id}")
    return RunSummary.model_validate(record.run)


def _count(services: Services, ended: RunSummary, *, helped: bool) -> None:
    if ended.purpose is not Purpose.REMEDY:
        services.metrics.taken_back.labels(ended.purpose, ended.state).inc()
        return
    services.metrics.runs.labels(ended.remediation, ended.state).inc()
    services.metrics.run_duration.observe(max(0.0, (ended.updated_at - ended.created_at).total_seconds()))
    if helped:
        services.metrics.runs_effective.labels(ended.remediation).inc()
    elif ended.effective is False:
        services.metrics.runs_ineffective.labels(ended.remediation).inc()
