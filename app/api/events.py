"""Streams the audit: the events so far as NDJSON, or new events as server-sent events."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator

from app.api.auth import Role, Viewer, authorize
from app.api.problems import ProblemError, errors
from app.api.query import Moment, moment
from app.api.services import Served, Services
from app.domain.errors import StoreUnavailableError
from app.store.audit import stream
from app.store.audit.seals import Cursor
from app.store.audit.stream import Page, Wanted

_LOOK_SECONDS = 1.0
_SILENT_LOOKS = 15  # then a comment is sent, so that proxies keep the connection
_SSE = "text/event-stream"
_NDJSON = "application/x-ndjson"
_CURSOR = re.compile("[0-9]{1,18}-[0-9]{1,18}")
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {_NDJSON: {"schema": {"type": "string"}}, _SSE: {"schema": {"type": "string"}}},
        "description": "One event a line, or server-sent events.",
    }
}
router = APIRouter(tags=["audit"])


def _cursor(text: str) -> str:
    if not _CURSOR.fullmatch(text):
        raise ValueError("is not a cursor; take it from the `cursor` of an event")
    return text


Place = Annotated[str, AfterValidator(_cursor)]


async def _wanted(
    services: Served,
    remediation: Annotated[str | None, Query(max_length=63, description="Only what is about this one.")] = None,
    kind: Annotated[list[str] | None, Query(max_length=20, description="Only this kind; repeatable.")] = None,
    since: Annotated[Moment | None, Query(description="Not before: RFC 3339, or a duration ago (24h).")] = None,
) -> Wanted:
    """Which events a request asks for."""
    return Wanted(remediation, tuple(kind or ()), moment(since, services.clock()) if since else None)


async def _start(
    after: Annotated[Place, Query(description="A `cursor`: only later events.")] = "0-0",
    last_event_id: Annotated[Place | None, Header(description="The same as `after`.")] = None,
) -> Cursor:
    """Where a request begins; a browser that connects again says where it was."""
    return Cursor.parse(last_event_id or after)


@router.get(
    "/events",
    operation_id="streamEvents",
    summary="Stream the audit's events",
    response_class=StreamingResponse,
    responses={**errors(401, 403, 422, 503), **_CONTENT},
)
async def stream_events(
    request: Request,
    services: Served,
    _who: Viewer,
    wanted: Annotated[Wanted, Depends(_wanted)],
    start: Annotated[Cursor, Depends(_start)],
) -> StreamingResponse:
    """NDJSON ends with the newest event; with `Accept: text/event-stream` new ones follow. Role: viewer."""
    await stream.page(services.database, start, wanted, 1)  # a store that is away is told before the 200
    if _SSE in request.headers.get("accept", ""):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_server_sent(request, services, start, wanted), media_type=_SSE, headers=headers)
    return StreamingResponse(_lines(services, start, wanted), media_type=_NDJSON)


async def _lines(services: Services, start: Cursor, wanted: Wanted) -> AsyncIterator[str]:
    async for row in stream.read(services.database, start, wanted):
        yield json.dumps(stream.described(row)) + "\n"


async def _server_sent(request: Request, services: Services, start: Cursor, wanted: Wanted) -> AsyncIterator[str]:
    """Each event with its cursor as id, until the service stops, the client goes, or its token no longer holds."""
    silent = 0
    while not services.stopping.is_set() and _still_may(request):
        try:
            found = await stream.page(services.database, start, wanted)
        except StoreUnavailableError:
            found = Page([], start, has_more=False)  # it comes back, and then nothing is missing
        for row in found.rows:
            described = stream.described(row)
            yield f"id: {described['cursor']}\nevent: {row.kind}\ndata: {json.dumps(described)}\n\n"
        start = found.end
        if found.has_more:
            continue
        silent = 0 if found.rows else silent + 1
        if silent and silent % _SILENT_LOOKS == 0:
            yield ": nothing new\n\n"
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await services.stopping.wait()


def _still_may(request: Request) -> bool:
    try:
        authorize(request, Role.VIEWER)
    except ProblemError:
        return False
    return True
