"""Closes breakers by hand, and decides about the runs that waited for them."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.auth import Approver, Identity
from app.api.holds import ERRORS, Name, Words, known_remediation
from app.api.json_body import body_of, read_given
from app.api.models import Answer
from app.api.services import Served, Services
from app.domain.states import RunState
from app.store.audit import chain
from app.store.audit.chain import Entry, Event, catalog_chain
from app.store.db.rerun import rerun
from app.store.gates import breakers
from app.store.ledger import approvals
from app.store.ledger.approvals import DecisionKind, HumanDecision

router = APIRouter()


class BreakerWord(BaseModel):
    """The decision about the runs that waited for the breaker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    waiting: Literal["replay", "drop"] = Field(description="replay: decide them now; drop: cancel them.")
    comment: Words = ""


class BreakerClosed(Answer):
    """The result of closing a breaker."""

    was_open: bool
    dropped: int = Field(description="Runs that had waited and were cancelled.")


@router.post(
    "/catalog/{name}/breaker/close",
    operation_id="closeBreaker",
    summary="Close a remediation's breaker by hand",
    responses=ERRORS,
    openapi_extra=body_of(BreakerWord, required=True),
    tags=["pause"],
)
async def close_breaker(request: Request, services: Served, who: Approver, name: Name) -> BreakerClosed:
    """Decides about the runs that waited for it. Role: approver."""
    given = await read_given(request, BreakerWord)
    known_remediation(services, name)
    closed = await _close(services, name, given, who)
    services.metrics.runs.labels(name, RunState.CANCELLED).inc(closed.dropped)
    services.work.set()
    return closed


@rerun
async def _close(services: Services, name: str, given: BreakerWord, who: Identity) -> BreakerClosed:
    dropped = 0
    async with services.parts.turn(lock="admission") as turn:
        tx, now = turn.tx, turn.now
        if given.waiting == "drop":
            for run_id in await breakers.waiting(tx, name):
                await approvals.decide(tx, run_id, HumanDecision(DecisionKind.DROP, who.name, given.comment), now)
                dropped += 1
        was_open = await breakers.close(tx, name, now)
        said = f"breaker closed by {who.name}; its runs are " + ("dropped" if given.waiting == "drop" else "decided")
        data = {"waiting": given.waiting, "dropped": dropped, "comment": given.comment}
        entry = Entry(said if was_open else f"{said}; it was not open", actor=who.name, data=data)
        await chain.append(tx, [Event(catalog_chain(name), now, "breaker_closed", "", entry)])
    return BreakerClosed(was_open=was_open, dropped=dropped)
