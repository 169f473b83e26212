"""What supervisors ask: alive, ready, metrics. Open to everyone, since they hold aggregates and no alert's content."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from app.api.problems import ProblemError, ProblemReason, errors
from app.api.services import Served, Services
from app.domain.errors import StoreUnavailableError
from app.domain.states import RunState
from app.store import audit, inbox
from app.telemetry.metrics import CONTENT_TYPE

_STORE_SECONDS = 3.0  # well within a scrape's time-out
router = APIRouter(tags=["operation"])


@router.get(
    "/-/healthy", operation_id="healthy", summary="Say that the process is alive", response_class=PlainTextResponse
)
async def healthy() -> str:
    """Asks nobody else, so that an outage of the store restarts nothing."""
    return "ok\n"


@router.get(
    "/-/ready",
    operation_id="ready",
    summary="Say whether this replica can serve",
    response_class=PlainTextResponse,
    responses=errors(503),
)
async def ready(services: Served) -> str:
    """503 names everything that is missing."""
    problems = await services.ready()
    if problems:
        raise ProblemError(503, ProblemReason.NOT_READY, "; ".join(problems), errors=problems)
    return "ready\n"


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in the text format of Prometheus",
    response_class=PlainTextResponse,
)
async def metrics(services: Served) -> Response:
    """Answers while the store is away too; what only the store knows is then NaN."""
    active, waiting = await _counts(services)
    for state in RunState:
        if not state.is_final:
            services.metrics.active_runs.labels(state).set(active.get(state, 0) if active is not None else math.nan)
    services.metrics.inbox.set(waiting)
    return Response(services.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


async def _counts(services: Services) -> tuple[Mapping[RunState, int] | None, float]:
    try:
        async with asyncio.timeout(_STORE_SECONDS), services.database.read() as tx:
            return await audit.count_active(tx), await inbox.count_waiting(tx)
    except (StoreUnavailableError, TimeoutError):
        return None, math.nan
