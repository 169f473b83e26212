"""`check`, which reports problems of catalog and configuration, and `schema`, for editors that report them earlier."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from app import __version__
from app.catalog.catalog import Catalog
from app.catalog.diagnostics import counted
from app.catalog.loader import load
from app.catalog.reload import CatalogHolder
from app.catalog.schema import json_schema
from app.cli import named_files
from app.cli.options import NO, with_settings
from app.domain.errors import ConfigError
from app.domain.findings import Report, Result
from app.engine.background.preflight import Preflight
from app.main import installation_of, parts_of, read_files, utc_now
from app.settings import Settings
from app.store.db.database import Database
from app.telemetry.metrics import Metrics


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--live", is_flag=True, help="Also ask the real systems whether each remediation could run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings
def check(settings: Settings, paths: tuple[Path, ...], *, live: bool, as_json: bool) -> None:
    """Check catalog and configuration. Asks no server without --live, and changes nothing.

    PATHS are files or directories of remediations, by default the configured ones. Exit status: 0 well, 1 problems in
    the catalog or, with --live, a remediation that cannot run, 2 problems in the configuration.
    """
    read_files(settings)
    named_files.read(settings)
    try:
        catalog = load(paths or settings.catalog, utc_now())
    except ConfigError as error:
        if as_json:
            found = [_diagnostic(one) for one in error.diagnostics]
            click.echo(json.dumps({"ok": False, "message": error.message, "problems": found}))
        else:
            for diagnostic in error.diagnostics:
                click.echo(str(diagnostic), err=True)
            click.echo(error.message, err=True)
        sys.exit(NO)
    warnings = installation_of(settings).warnings(catalog)
    reports = asyncio.run(_look(settings, catalog)) if live else []
    can_run = not any(report.result is Result.CANNOT for report in reports)
    if as_json:
        told: dict[str, Any] = {"ok": can_run, "remediations": len(catalog), "digest": catalog.digest}
        told |= {"freezes": len(catalog.freezes)}
        told |= {"warnings": [_diagnostic(one) for one in warnings], "earning": _earning(catalog)}
        told |= {"without_guards": _without(catalog)}
        told |= {"preflight": [report.model_dump(mode="json") for report in reports]} if live else {}
        click.echo(json.dumps(told))
    else:
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        for line in _notes(catalog):
            click.echo(line)
        if reports:
            click.echo("\n".join(_table(reports)))
        click.echo(f"{'ok' if can_run else 'NOT ALL CAN RUN'}: {_size(catalog)}, digest {catalog.short_digest}")
    if not can_run:
        sys.exit(NO)


def _size(catalog: Catalog) -> str:
    size = f"{counted(len(catalog), 'remediation')} in {counted(len(catalog.files), 'file')}"
    return f"{size}, {counted(len(catalog.freezes), 'freeze')}" if catalog.freezes else size


def _earning(catalog: Catalog) -> dict[str, dict[str, str]]:
    """The remediations that earn their mode: where they start, and how far they may come."""
    return {
        name: {"mode": one.mode.value, "start": one.earn.start.value}
        for name, one in catalog.remediations.items()
        if one.earn is not None
    }


def _without(catalog: Catalog) -> dict[str, dict[str, str]]:
    """The remediations that some guards do not hold for, and why."""
    return {
        name: {guard.value: why for guard, why in one.without_guards.items()}
        for name, one in catalog.remediations.items()
        if one.without_guards
    }


def _notes(catalog: Catalog) -> list[str]:
    """Return the notes for a person about a catalog that is in order."""
    notes = [
        f"{name}: mode: {one['mode']}, earned: starts at {one['start']}" for name, one in _earning(catalog).items()
    ]
    for name, guards in _without(catalog).items():
        notes += [f"{name}: the guard {guard} is turned off: {why}" for guard, why in guards.items()]
    return notes


async def _look(settings: Settings, catalog: Catalog) -> list[Report]:
    """Ask the real systems; the store is not among them."""
    database = Database(settings.store_url)
    holder = CatalogHolder(settings.catalog, catalog, lambda *_: None)
    parts = parts_of(settings, holder, Metrics(__version__), database, utc_now)
    try:
        return await Preflight(parts).look(catalog.remediations.values())
    finally:
        await parts.clients.close()
        await database.close()


def _table(reports: list[Report]) -> list[str]:
    """One line for each remediation that could run, and one for each thing that stands against another one."""
    title = "REMEDIATION"
    width = max(len(title), *(len(report.remediation) for report in reports))
    lines = [f"{title:<{width}}  RESULT   WHAT"]
    for report in reports:
        told = [finding for finding in report.findings if finding.result is not Result.OK]
        rows = [(finding.result.value, f"{finding.subject}: {finding.message}") for finding in told]
        if not report.findings:
            rows = [("unknown", "its needs depend on the alert")]
        rows = rows or [("ok", f"{counted(len(report.findings), 'question')} asked")]
        lines += [f"{report.remediation:<{width}}  {result:<7}  {what}" for result, what in rows]
    return lines


def _diagnostic(diagnostic: Any) -> dict[str, Any]:
    return {name: getattr(diagnostic, name) for name in ("file", "line", "column", "path", "message")}


@click.command()
@click.argument("of", type=click.Choice(["catalog", "configuration"]), default="catalog")
def schema(of: str) -> None:
    """Print the JSON Schema of catalog files, or of the configuration, for editors."""
    wanted = json_schema() if of == "catalog" else Settings.model_json_schema()
    click.echo(json.dumps(wanted, indent=2, sort_keys=True))
