"""`runs`: the last actions, for people."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from app.api.query import RunQuery
from app.api.remediations import page_of_runs
from app.catalog.diagnostics import counted
from app.cli.options import Moment, use_store, with_settings
from app.cli.remote import Service, token_in, with_token_file, with_url
from app.domain.wording import on_target
from app.main import utc_now
from app.settings import Settings
from app.store.db.database import Database

_WIDTH = 100
_PAGE = 200
_COLUMNS = ("WHEN (UTC)", 16), ("RESULT", 17), ("HELPED", 7)
_HELPED = {True: "yes", False: "no", None: "-"}
_INDENT = " " * sum(width + 2 for _, width in _COLUMNS)


@click.command("runs")
@click.option("--since", type=Moment(), default="12h", show_default=True, help="From then on: a time, or 12h ago.")
@click.option("--remediation", multiple=True, help="Only runs of this remediation; repeatable.")
@click.option("--most", type=click.IntRange(1, 10_000), default=500, show_default=True, help="At most so many runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with everything that GET /remediations has.")
@with_url
@with_token_file
@with_settings
def runs_command(settings: Settings, url: str | None, *, as_json: bool, most: int, **asked: Any) -> None:
    """List the last runs in words, oldest first: each change, and whether it helped.

    Reads the configured store, or asks the service at --url.
    """
    since: datetime = asked["since"]
    query: dict[str, Any] = {"since": since.isoformat(), "remediation": list(asked["remediation"])}
    if url:
        items = _from_service(Service(url, token_in(asked["token_file"])), query, most)
    else:
        items = asyncio.run(_from_store(settings, query, most))
    items.reverse()
    click.echo(json.dumps(items, indent=2) if as_json else "\n".join(described(items, since, most)))


def _from_service(service: Service, query: dict[str, Any], most: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while len(items) < most:
        page = service.get("/remediations", query | {"limit": min(_PAGE, most)} | cursor)
        items += page["items"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    return items[:most]


async def _from_store(settings: Settings, query: dict[str, Any], most: int) -> list[dict[str, Any]]:
    async def read(database: Database) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(items) < most:
            async with database.browse() as tx:
                asked = RunQuery(**query, limit=min(_PAGE, most), cursor=cursor)
                page = await page_of_runs(tx, asked, utc_now())
            items += [item.model_dump(mode="json") for item in page.items]
            cursor = page.next
            if cursor is None:
                break
        return items[:most]

    return await use_store(settings, read)


def described(items: Sequence[Mapping[str, Any]], since: datetime, most: int) -> Iterator[str]:
    """The runs as a table of at most 100 columns, and how many there were of each kind."""
    if items:
        yield "  ".join(name.ljust(width) for name, width in _COLUMNS) + "  WHAT"
    for item in items:
        yield from _row(item)
    if len(items) >= most:
        yield f"and perhaps older ones: only the newest {most} are shown; see --most"
    yield _total(items, since)


def _row(item: Mapping[str, Any]) -> Iterator[str]:
    when = datetime.fromisoformat(item["created_at"]).strftime("%Y-%m-%d %H:%M")
    helped = "not yet" if _may_help_yet(item) else _HELPED[item["effective"]]
    cells = (when, item["state"].replace("_", " "), helped)
    first = "  ".join(cell.ljust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)) + "  "
    for number, line in enumerate(_what(item)):
        wrapped = textwrap.wrap(line, _WIDTH - len(_INDENT), subsequent_indent="  " if number else "")
        for part in wrapped:
            yield f"{first}{part}"
            first = _INDENT


def _may_help_yet(item: Mapping[str, Any]) -> bool:
    return item["state"] == "succeeded" and item["effective"] is None and item["purpose"] == "remedy"


def _what(item: Mapping[str, Any]) -> Iterator[str]:
    purpose = "" if item["purpose"] == "remedy" else f" ({item['purpose']} of run {item['undoes']})"
    yield f"{item['remediation']}{purpose}{on_target(item['target'])}"
    yield from (f"- {line}" for line in item.get("done", ()))
    yield from (f"- planned: {line}" for line in item.get("planned", ()))
    if item["state"] == "succeeded":
        return
    why = item["message"].partition("): ")[2] or item["message"]
    if not any(why in line for line in item.get("done", ())):  # of a step that failed, its line has said so
        yield item["message"]
    yield f"run {item['id']}"


def _total(items: Sequence[Mapping[str, Any]], since: datetime) -> str:
    if not items:
        return f"no runs since {since:%Y-%m-%d %H:%M} UTC"
    states = Counter(item["state"].replace("_", " ") for item in items)
    told = ", ".join(f"{count} {state}" for state, count in states.most_common())
    helped = sum(item["effective"] is True for item in items)
    told += f"; {helped} helped" if any(item["state"] == "succeeded" for item in items) else ""
    return f"{counted(len(items), 'run')} since {since:%Y-%m-%d %H:%M} UTC: {told}"
