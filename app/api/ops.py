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
from app.domain.obstacles import Breaker
from app.domain.states import RunState
from app.engine.standing import present
from app.store import audit, breakers, inbox, messages, standings
from app.telemetry.metrics import CONTENT_TYPE

_STORE_SECONDS = 3.0  # well within a scrape's time-out
router = APIRouter(tags=["operation"])


@router.head("/-/healthy", include_in_schema=False)
@router.get(
    "/-/healthy", operation_id="healthy", summary="Say that the process is alive", response_class=PlainTextResponse
)
async def healthy() -> str:
    """Asks nobody else, so that an outage of the store restarts nothing."""
    return "ok\n"


@router.head("/-/ready", include_in_schema=False)
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


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in the text format of Prometheus",
    response_class=PlainTextResponse,
)
async def metrics(services: Served) -> Response:
    """Answers while the store is away too; what only the store knows is then NaN."""
    active, waiting, untold = await _counts(services)
    for state in RunState:
        if not state.is_final:
            services.metrics.active_runs.labels(state).set(active.get(state, 0) if active is not None else math.nan)
    services.metrics.inbox.set(waiting)
    await _standings(services)
    services.metrics.messages_waiting.set(untold)
    return Response(services.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


async def _standings(services: Services) -> None:
    """Breakers and earned modes of the running catalog's remediations; those that are gone have no series any more."""
    metrics, now, remediations = services.metrics, services.clock(), services.catalog.current.remediations
    try:
        async with asyncio.timeout(_STORE_SECONDS), services.database.browse() as tx:
            open_now = await breakers.get_all(tx)
            known = await standings.get_all(tx)
    except (StoreUnavailableError, TimeoutError):
        open_now, known = None, None
    metrics.breaker_state.clear()
    metrics.earned_mode.clear()
    for name in remediations:
        state = math.nan if open_now is None else open_now.get(name, Breaker()).state(now).rank
        metrics.breaker_state.labels(name).set(state)
    for name, one in remediations.items():
        if one.earn is not None:
            found = None if known is None else present(one, known.get(name), now)
            metrics.earned_mode.labels(name).set(math.nan if found is None else found.mode.rank)


async def _counts(services: Services) -> tuple[Mapping[RunState, int] | None, float, float]:
    try:
        async with asyncio.timeout(_STORE_SECONDS), services.database.browse() as tx:
            return await audit.count_active(tx), await inbox.count_waiting(tx), await messages.count_waiting(tx)
    except (StoreUnavailableError, TimeoutError):
        return None, math.nan, math.nan
