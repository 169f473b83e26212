"""The questions of supervisors: alive, ready, metrics. Open to all: they hold aggregates and no alert's content."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from app.api.problems import ProblemError, ProblemReason, errors
from app.api.services import Served, Services
from app.catalog.diagnostics import counted
from app.domain.earned_mode import Standing
from app.domain.errors import StoreUnavailableError
from app.domain.obstacles import Breaker
from app.domain.states import RunState
from app.engine.outcomes.earned_mode import present
from app.store.db import durability
from app.store.db.leadership import MATTERS, Leader, leaders
from app.store.gates import breakers
from app.store.gates import earned_modes as standings
from app.store.gates import pauses as holds
from app.store.queries import search
from app.telemetry.metrics import CONTENT_TYPE

_STORE_SECONDS = 3.0  # well within a scrape's time-out
router = APIRouter(tags=["operation"])


@dataclass(frozen=True, slots=True)
class _Stored:
    """The facts that only the store knows."""

    unfinished: search.Unfinished
    breakers: Mapping[str, Breaker]
    standings: Mapping[str, Standing]
    leaders: Sequence[Leader]
    kept: durability.Kept
    pauses: Counter[str]  # that stand, by their scope


@router.head("/-/healthy", include_in_schema=False)
@router.get(
    "/-/healthy", operation_id="healthy", summary="Say that the process is alive", response_class=PlainTextResponse
)
async def healthy() -> str:
    """Asks no other server, so that an outage of the store restarts nothing."""
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
    """The body names the leaders with the earliest end of their leads, the pauses, and the promises of the store.

    503 names every cause.
    """
    problems = await services.ready()
    if problems:
        raise ProblemError(503, ProblemReason.NOT_READY, "; ".join(problems), errors=problems)
    async with services.database.browse() as tx:
        led, kept = await leaders(tx), await durability.look(tx)
        paused = await holds.standing(tx, services.clock())
    lines = [f"{one.matter}: led by {one.holder} until {one.until:%H:%M:%S} UTC" for one in led]
    lines += [] if services.database.is_sqlite else [f"store: {kept}"]
    return "\n".join(["ready", *lines, *_paused(paused)]) + "\n"


def _paused(standing: Sequence[Any]) -> Iterator[str]:
    """Return the pauses without holders and reasons, and without names of targets, since the page is open to all."""
    yield from (f"PAUSED: everything, since {_time(one.since)}, {_end(one)}" for one in standing if one.scope == "all")
    for scope in ("remediation", "target"):
        count = sum(one.scope == scope for one in standing)
        if count:
            yield f"paused: {counted(count, scope)}"


def _end(row: Any) -> str:
    return f"until {_time(row.until)}" if row.until else "without an end"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics in the text format of Prometheus",
    response_class=PlainTextResponse,
)
async def metrics(services: Served) -> Response:
    """Answers while the store is away too; the store's figures are then NaN."""
    stored = await _stored(services)
    _set(services, stored)
    pieces = await services.database.pace.collect(services.metrics.exposition())
    return Response(b"".join(pieces), headers={"Content-Type": CONTENT_TYPE})


async def _stored(services: Services) -> _Stored | None:
    try:
        async with asyncio.timeout(_STORE_SECONDS), services.database.browse() as tx:
            return _Stored(
                unfinished=await search.count_unfinished(tx),
                breakers=await breakers.get_all(tx),
                standings=await standings.get_all(tx),
                leaders=await leaders(tx),
                kept=await durability.look(tx),
                pauses=Counter(row.scope for row in await holds.standing(tx, services.clock())),
            )
    except (StoreUnavailableError, TimeoutError):
        return None


def _set(services: Services, stored: _Stored | None) -> None:
    metrics = services.metrics
    for state in RunState:
        if not state.is_final:
            metrics.active_runs.labels(state).set(math.nan if stored is None else stored.unfinished.runs[state])
    metrics.inbox.set(math.nan if stored is None else stored.unfinished.notifications)
    metrics.messages_waiting.set(math.nan if stored is None else stored.unfinished.messages)
    for scope in ("all", "remediation", "target"):
        metrics.pauses.labels(scope).set(math.nan if stored is None else stored.pauses[scope])
    for matter in MATTERS:
        metrics.leader.labels(matter).set(math.nan if stored is None else _leads(services, stored, matter))
    metrics.store_keeps.labels("crash").set(math.nan if stored is None else stored.kept.crash)
    metrics.store_keeps.labels("failover").set(math.nan if stored is None else stored.kept.failover)
    _set_standings(services, stored)


def _leads(services: Services, stored: _Stored, matter: str) -> bool:
    if services.database.is_sqlite:
        return True
    return any((one.matter, one.holder) == (matter, services.parts.owner) for one in stored.leaders)


def _set_standings(services: Services, stored: _Stored | None) -> None:
    """Breakers and earned modes of the running catalog's remediations."""
    metrics, now, remediations = services.metrics, services.clock(), services.catalog.current.remediations
    metrics.forget_all_but(remediations)
    for name, one in remediations.items():
        state = math.nan if stored is None else stored.breakers.get(name, Breaker()).state(now).rank
        metrics.breaker_state.labels(name).set(state)
        if one.earn is not None:
            found = None if stored is None else present(one, stored.standings.get(name), now)
            metrics.earned_mode.labels(name).set(math.nan if found is None else found.mode.rank)
