"""Writes lists as JSON, CSV or NDJSON, with the link to the next page in a header (RFC 8288).

CSV is made for spreadsheets, which run a value that begins like a formula; labels come from outside, so such values get
an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from pydantic import BaseModel

from app.api.models import EpisodeItem, EpisodePage, RunItem, RunPage
from app.api.query import Format

_MEDIA_TYPES = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.NDJSON: "application/x-ndjson",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LINES = {"done", "planned"}  # lists of texts for people
LIST_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page; the header `Link` (rel=next) leads to the next one.",
        "headers": {"Link": {"description": "The next page, if there is one.", "schema": {"type": "string"}}},
        "content": {_MEDIA_TYPES[kind]: {"schema": {"type": "string"}} for kind in (Format.CSV, Format.NDJSON)},
    }
}


def negotiate(request: Request, asked: Format | None) -> Format:
    """The format that the query names, else the first known one of the Accept header, else JSON."""
    if asked is not None:
        return asked
    for part in request.headers.get("accept", "").split(","):
        media_type = part.partition(";")[0].strip().lower()
        for known, name in _MEDIA_TYPES.items():
            if media_type == name:
                return known
    return Format.JSON


def render(request: Request, page: RunPage | EpisodePage, kind: Format) -> Response:
    """The answer for one page."""
    headers = {"Vary": "Accept"}
    if page.next is not None:
        headers["Link"] = f'<{_next_url(request, page.next)}>; rel="next"'
    if kind is Format.JSON:
        content = page.model_dump_json()
    elif kind is Format.CSV:
        columns = RunItem.model_fields if isinstance(page, RunPage) else EpisodeItem.model_fields
        content = _csv(list(columns), page.items)
    else:
        content = "".join(f"{item.model_dump_json()}\n" for item in page.items)
    return Response(content, headers=headers, media_type=_MEDIA_TYPES[kind])


def _next_url(request: Request, cursor: str) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return f"{request.url.path}?{urlencode([*kept, ('cursor', cursor)])}"


def _csv(columns: Sequence[str], items: Sequence[BaseModel]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for item in items:
        values = item.model_dump(mode="json")
        writer.writerow([_cell("; ".join(values[name]) if name in _LINES else values[name]) for name in columns])
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value
    return json.dumps(value, ensure_ascii=False)
