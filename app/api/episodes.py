"""The alerts that were received, matched or not: the answer to "why did nothing happen"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.engine import Row

from app.api.auth import Viewer
from app.api.formats import LIST_RESPONSES, negotiate, render
from app.api.models import EpisodeItem, EpisodePage, RunReference
from app.api.problems import errors
from app.api.query import EpisodeQuery, cursor
from app.api.services import Served
from app.catalog.catalog import Catalog
from app.engine.explain import nearest
from app.store.queries import search

_MOST_COMPARED = 500  # remediations; a larger catalog is for `remediator plan` to search
router = APIRouter(tags=["episodes"])


@router.get(
    "/episodes",
    operation_id="listEpisodes",
    summary="List received alerts with their matching remediations, newest first",
    response_model=EpisodePage,
    responses={**LIST_RESPONSES, **errors(401, 403, 422, 503)},
)
async def list_episodes(
    request: Request, services: Served, _who: Viewer, query: Annotated[EpisodeQuery, Query()]
) -> Response:
    """One entry is one alert from firing to resolved, however often it was sent. Role: viewer."""
    async with services.database.browse() as tx:
        found = await search.find_episodes(tx, query.wanted(services.clock()), query.page)
        runs = await search.runs_of_episodes(tx, [row.id for row in found.rows])
    more = None if found.before is None else cursor(found.before)
    page = EpisodePage(items=_items(found.rows, runs, services.catalog.current), next=more)
    return render(request, page, negotiate(request, query.format))


def _items(rows: Sequence[Row[Any]], runs: Sequence[Row[Any]], catalog: Catalog) -> list[EpisodeItem]:
    by_episode: dict[str, list[RunReference]] = {}
    for one in runs:
        by_episode.setdefault(one.episode_id, []).append(RunReference.model_validate(one))
    return [
        EpisodeItem.model_validate(
            {**row._mapping, "runs": by_episode.get(row.id, []), "explanation": _explanation(row, catalog)}  # noqa: SLF001 - SQLAlchemy's public name
        )
        for row in rows
    ]


def _explanation(row: Row[Any], catalog: Catalog) -> str | None:
    if row.matched:
        return None
    if row.defect is not None:
        return f"it is set aside, so nothing was matched: {row.defect}"
    if row.closed_at == row.first_seen_at:
        return "it had resolved before it was first seen, so nothing was matched"
    said = "no remediation of the catalog has matched its labels"
    compared = tuple(catalog.remediations.values()) if len(catalog) <= _MOST_COMPARED else ()
    misses = nearest(compared, row.labels)
    if not misses:
        return said
    miss = misses[0]
    if miss.failing:
        return f"{said}; nearest: {miss.remediation}, but not {', '.join(miss.failing)}"
    when = "when Alertmanager sends the alert again" if row.closed_at is None else "the next time it fires"
    return f"{said}; {miss.remediation} matches now, and is decided on {when}"  # it was added later
