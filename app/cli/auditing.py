"""`audit verify` and `audit export`."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

import click

from app.catalog.diagnostics import counted
from app.cli.options import NO, Moment, use_store, with_settings
from app.domain.errors import ConfigError
from app.settings import Settings
from app.store.audit import stream
from app.store.audit.seals import Cursor
from app.store.audit.stream import Wanted
from app.store.audit.verify import Report, verify
from app.store.db.database import Database

_FOLLOW_SECONDS = 1.0


@click.group()
def audit() -> None:
    """Verify or export the audit."""


@audit.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--seal", "seals", multiple=True, help="Hash of a seal from the log; the store must have it. Repeatable.")
@with_settings
def verify_command(settings: Settings, seals: tuple[str, ...], *, as_json: bool) -> None:
    """Find changes of the audit since the service wrote it.

    Exit status: 0 the audit is as it was written, 1 it was changed, 2 it cannot be read.
    """
    report = asyncio.run(use_store(settings, partial(verify, known_seals=seals)))
    if report.has_other_key:
        raise ConfigError(
            f"none of the {report.hashed} events has a hash that the given key makes: "
            "pass the --config whose audit.key they were made with"
        )
    if as_json:
        click.echo(json.dumps(_as_json(report), indent=2))
    else:
        for finding in report.findings:
            click.echo(str(finding), err=True)
        click.echo(_told(report))
    if not report.is_intact:
        sys.exit(NO)


def _as_json(report: Report) -> dict[str, Any]:
    counts = ("events", "chains", "seals", "unsealed", "unhashed", "unkeyed")
    before = report.pruned_before.isoformat() if report.pruned_before else None
    told: dict[str, Any] = {"intact": report.is_intact, "pruned_before": before}
    return (
        told | {name: getattr(report, name) for name in counts} | {"findings": [asdict(one) for one in report.findings]}
    )


def _told(report: Report) -> str:
    events, chains, seals = (
        counted(report.events, "event"),
        counted(report.chains, "chain"),
        counted(report.seals, "seal"),
    )
    lines = [f"{events} in {chains}, {seals}"]
    for count, what in (
        (report.unsealed, "not sealed yet"),
        (report.unhashed, "without a hash, from a release that made none"),
        (report.unkeyed, "from before the key was configured"),
    ):
        if count:
            lines.append(f"  {count} of them {what}")
    if report.pruned_before:
        lines.append(f"  retention deleted the records from before {report.pruned_before:%Y-%m-%d %H:%M:%S} UTC")
    lines.append("intact" if report.is_intact else f"NOT INTACT: {counted(len(report.findings), 'finding')}")
    return "\n".join(lines)


@audit.command("export")
@click.option("--since", type=Moment(), help="Only events since then: a time, or a duration before now (24h).")
@click.option("--until", type=Moment(), help="Only events before then, in the same form.")
@click.option("--after", default="0-0", show_default=True, help="A cursor: only later events.")
@click.option("--follow", is_flag=True, help="Go on with new events until interrupted.")
@with_settings
def export_command(
    settings: Settings, since: datetime | None, until: datetime | None, after: str, *, follow: bool
) -> None:
    """Print events as NDJSON for a SIEM. Each line has one event with its cursor."""
    try:
        start = Cursor.parse(after)
    except ValueError:
        raise ConfigError(f"--after: {after!r} is not a cursor; it is written in each exported line") from None
    wanted = Wanted(since=since, until=until)

    async def export(database: Database) -> None:
        place = start
        while True:
            async for row in stream.read(database, place, wanted):
                click.echo(json.dumps(stream.described(row)))
                place = Cursor(row.tx, row.id)
            if not follow:
                return
            await asyncio.sleep(_FOLLOW_SECONDS)

    with suppress(KeyboardInterrupt):
        asyncio.run(use_store(settings, export))
