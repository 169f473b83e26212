"""The command line.

Exit codes: 0 yes, 1 no (there are problems, nothing would be done), 2 cannot tell (usage, settings, store).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import click
from pydantic import ValidationError

from app import __version__
from app.api.auth import Authenticator
from app.catalog.connected import unconfigured
from app.catalog.loader import load
from app.catalog.reload import CatalogHolder
from app.catalog.schema import json_schema
from app.domain.alerts import Alert, Notification
from app.domain.durations import format_duration
from app.domain.errors import AppError, ConfigError
from app.domain.remediation import Mode
from app.engine.explain import Explanation, Prospect, explain
from app.main import parts_of, serve, utc_now
from app.settings import Settings, load_settings
from app.store.database import Database
from app.store.migrate import is_current, migrate
from app.telemetry.logs import configure
from app.telemetry.metrics import Metrics

_NO, _CANNOT_TELL = 1, 2


def main() -> None:
    """Run the command line."""
    cli(prog_name="remediator")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="remediator")
def cli() -> None:
    """Turn Prometheus alerts into safe, verified, audited remediations."""


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the settings that its flags, the environment and the config file make; problems end it."""

    @click.option("--config", type=click.Path(path_type=Path), envvar="REMEDIATOR_CONFIG", help="The config file.")
    @click.option("--catalog", multiple=True, type=click.Path(path_type=Path), help="File or directory; repeatable.")
    @click.option("--store", help="sqlite:///file.db or postgresql://…")
    @click.option("--data", type=click.Path(path_type=Path), help="Directory of the SQLite store.")
    @click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="The most that may be done.")
    @wraps(command)
    def with_settings(config: Path | None, catalog: tuple[Path, ...], **flags: Any) -> Any:
        own = {key: flags.pop(key) for key in list(flags) if key not in {"store", "data", "mode", "listen"}}
        try:
            settings = load_settings(config, flags | {"catalog": catalog or None})
            configure(settings.log.level, settings.log.format)
            return command(settings, **own)
        except AppError as error:
            _fail(error)

    return with_settings


def _fail(error: AppError) -> NoReturn:
    for diagnostic in getattr(error, "diagnostics", ()):
        click.echo(str(diagnostic), err=True)
    click.echo(f"remediator: {error.message}", err=True)
    sys.exit(_CANNOT_TELL)


@cli.command("serve")
@click.option("--listen", help="Address to serve on, host:port (default 127.0.0.1:8080).")
@_with_settings
def serve_command(settings: Settings) -> None:
    """Receive alerts and remediate until stopped."""
    given = settings.model_fields_set
    if not given & {"store", "store_file"}:
        _make_directory(settings.data)
    if "catalog" not in given:
        _make_directory(settings.catalog[0])
    serve(settings)


def _make_directory(path: Path) -> None:
    """The defaults work in an empty directory; a path that somebody named must exist."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make the directory {path}: {error.strerror}") from error


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_settings
def check(settings: Settings, paths: tuple[Path, ...], *, as_json: bool) -> None:
    """Check catalog and configuration; contacts nothing.

    PATHS are files or directories of remediations, by default the configured ones. Exit status: 0 well, 1 problems in
    the catalog, 2 problems in the configuration.
    """
    Authenticator(settings.auth.tokens).check()
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
        sys.exit(_NO)
    warnings = [*catalog.warnings, *unconfigured(catalog, settings.connections)]
    if as_json:
        told = [_diagnostic(one) for one in warnings]
        click.echo(json.dumps({"ok": True, "remediations": len(catalog), "digest": catalog.digest, "warnings": told}))
        return
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"ok: {len(catalog)} remediations in {len(catalog.files)} files, digest {catalog.short_digest}")


def _diagnostic(diagnostic: Any) -> dict[str, Any]:
    return {name: getattr(diagnostic, name) for name in ("file", "line", "column", "path", "message")}


@cli.command()
@click.option("--alert", "alert_file", required=True, type=click.File("rb"), help="An alert or notification, or -.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_settings
def plan(settings: Settings, alert_file: Any, *, as_json: bool) -> None:
    """Say what would happen to an alert now; changes nothing.

    It asks the real targets and the store. Exit status: 0 something would be done or asked for, 1 nothing would be
    done, 2 it cannot tell, because something cannot be reached or is not configured.
    """
    alerts = read_alerts(alert_file.read())
    if not alerts:
        raise ConfigError("--alert: there is no alert in it")
    explanations = asyncio.run(_explain(settings, alerts))
    if as_json:
        click.echo(json.dumps([one.model_dump(mode="json") for one in explanations], indent=2))
    else:
        click.echo("\n\n".join(describe(one) for one in explanations))
    if any(one.would_act for one in explanations):
        return
    sys.exit(_NO if all(one.is_certain for one in explanations) else _CANNOT_TELL)


def _has_run(database: Database) -> bool:
    return not database.is_sqlite or Path(str(database.url.database)).exists()


async def _explain(settings: Settings, alerts: list[Alert]) -> list[Explanation]:
    holder = CatalogHolder(settings.catalog, load(settings.catalog, utc_now()), lambda *_: None)
    with TemporaryDirectory() as empty:
        database = await _store_for_reading(settings, Path(empty))
        parts = parts_of(settings, holder, Metrics(__version__), database)
        try:
            return [await explain(parts, alert) for alert in alerts]
        finally:
            await parts.clients.close()
            await database.close()


async def _store_for_reading(settings: Settings, empty: Path) -> Database:
    """The configured store, or an empty one where the service has never run: a plan must not create a file."""
    database = Database(settings.store_url)
    if not _has_run(database):
        await database.close()
        database = Database(f"sqlite:///{empty / 'empty.db'}")
        await migrate(database)
    elif not await is_current(database):
        await database.close()
        raise ConfigError("the store has the schema of another release; run `remediator migrate`")
    return database


def read_alerts(body: bytes) -> list[Alert]:
    """The alerts of a notification, of a list, or one alert; a missing fingerprint or time is made up."""
    try:
        document = json.loads(body)
        if isinstance(document, dict) and isinstance(document.get("body"), dict):
            document = document["body"]
        if isinstance(document, dict) and "alerts" in document:
            return Notification.model_validate(document).alerts
        given = document if isinstance(document, list) else [document]
        made_up = {"status": "firing", "fingerprint": "0", "startsAt": utc_now().isoformat()}
        return [Alert.model_validate(made_up | one) for one in given]
    except (ValueError, TypeError) as error:
        problem = (
            error.errors(include_url=False, include_input=False)[0] if isinstance(error, ValidationError) else None
        )
        where = ".".join(map(str, problem["loc"])) + ": " + problem["msg"] if problem else str(error)
        raise ConfigError(f"--alert: not an alert or notification of Alertmanager: {where}") from error


def describe(explanation: Explanation) -> str:
    """The explanation for a person at a terminal."""
    labels = ", ".join(f'{name}="{value}"' for name, value in sorted(explanation.labels.items()))
    lines = [f"alert {{{labels}}}"]
    for prospect in explanation.prospects:
        lines += _describe_prospect(prospect)
    if explanation.status == "resolved":
        lines.append("  it has resolved: nothing would be done")
    elif not explanation.prospects:
        lines.append("  no remediation matches")
        lines += [f"    nearest: {miss.remediation}, but not {', '.join(miss.failing)}" for miss in explanation.nearest]
    return "\n".join(lines)


def _describe_prospect(prospect: Prospect) -> list[str]:
    because = f" ({prospect.reason})" if prospect.reason else ""
    because += f": {prospect.message}" if prospect.message else ""
    lines = [
        f"  remediation {prospect.remediation}: {prospect.summary}",
        f"    verdict  {prospect.verdict.replace('_', ' ')}{because}",
    ]
    found = prospect.plan
    if found is not None:
        origin = f" (from {found.target.resolved_from})" if found.target.resolved_from else ""
        lines.append(f"    target   {found.target.key}{origin}")
        for number, step in enumerate(found.steps, 1):
            lines.append(
                f"    step {number}   {step.action}: {step.summary}{'' if step.changes else ' (nothing to do)'}"
            )
            lines.append(f"      before {json.dumps(step.before, default=str)}")
            lines.append(f"      after  {json.dumps(step.desired, default=str)}")
        lines += [f"    verify   {check.check} within {format_duration(check.timeout)}" for check in found.verify]
        if found.settle is not None:
            lines.append(f"    settle   the alert must resolve within {format_duration(found.settle)}")
    for decision in prospect.decisions:
        said = ": ".join(part for part in (decision.verdict.value, decision.message) if part)
        lines.append(f"    guard    {decision.guard:<16}{said}")
    return lines


@cli.command()
def schema() -> None:
    """Print the JSON Schema of catalog files, for editors."""
    click.echo(json.dumps(json_schema(), indent=2, sort_keys=True))


@cli.command("migrate")
@_with_settings
def migrate_command(settings: Settings) -> None:
    """Bring the store to the schema of this release."""

    async def upgrade() -> tuple[str | None, str | None]:
        database = Database(settings.store_url)
        try:
            return await migrate(database)
        finally:
            await database.close()

    before, after = asyncio.run(upgrade())
    click.echo(f"already at {after}" if before == after else f"migrated from {before or 'nothing'} to {after}")
