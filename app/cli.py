"""The command line.

Exit codes: 0 yes, 1 no (there are problems, nothing would be done), 2 cannot tell (usage, settings, store).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar

import click
from pydantic import ValidationError

from app import __version__
from app.api.query import moment
from app.catalog.catalog import Catalog
from app.catalog.connected import unconfigured
from app.catalog.diagnostics import counted
from app.catalog.loader import load
from app.catalog.reload import CatalogHolder
from app.catalog.schema import json_schema
from app.domain.alerts import Alert, Notification, fingerprint_of
from app.domain.durations import format_duration
from app.domain.errors import AppError, ConfigError
from app.domain.findings import Report as Preflighted
from app.domain.findings import Result
from app.domain.remediation import Mode
from app.engine.explain import Explanation, Prospect, explain
from app.engine.preflight import Preflight
from app.main import audit_key_of, parts_of, policy_of, read_files, serve, utc_now
from app.settings import Settings, load_settings
from app.store import stream
from app.store.database import Database
from app.store.migrate import is_current, migrate
from app.store.seals import Cursor
from app.store.stream import Wanted
from app.store.verifying import Report, verify
from app.telemetry.logs import configure
from app.telemetry.metrics import Metrics

_NO, _CANNOT_TELL = 1, 2
_FOLLOW_SECONDS = 1.0
T = TypeVar("T")


class _Moment(click.ParamType):  # type: ignore[type-arg]  # generic only in newer stubs
    """A time, or how long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read what the API's `since` takes too."""
        try:
            return moment(str(value), utc_now())
        except ValueError as error:
            self.fail(str(error), param, ctx)


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
@click.option("--live", is_flag=True, help="Also ask the real systems whether each remediation could run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_settings
def check(settings: Settings, paths: tuple[Path, ...], *, live: bool, as_json: bool) -> None:
    """Check catalog and configuration; contacts nothing without --live, and changes nothing with it.

    PATHS are files or directories of remediations, by default the configured ones. Exit status: 0 well, 1 problems in
    the catalog or, with --live, a remediation that cannot run, 2 problems in the configuration.
    """
    read_files(settings)
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
    scope = policy_of(settings).scope
    warnings = [*catalog.warnings, *unconfigured(catalog, settings.connections, scope, settings.channel)]
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
        sys.exit(_NO)


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
    """What a person should know of a catalog that is in order."""
    notes = [
        f"{name}: mode: {one['mode']}, earned: starts at {one['start']}" for name, one in _earning(catalog).items()
    ]
    for name, guards in _without(catalog).items():
        notes += [f"{name}: the guard {guard} is turned off: {why}" for guard, why in guards.items()]
    return notes


async def _look(settings: Settings, catalog: Catalog) -> list[Preflighted]:
    """Ask the real systems; the store is not among them."""
    database = Database(settings.store_url)
    holder = CatalogHolder(settings.catalog, catalog, lambda *_: None)
    parts = parts_of(settings, holder, Metrics(__version__), database, utc_now)
    try:
        return await Preflight(parts).look(catalog.remediations.values())
    finally:
        await parts.clients.close()
        await database.close()


def _table(reports: list[Preflighted]) -> list[str]:
    """One line for each remediation that could run, and one for each thing that stands against another one."""
    width = max(len(report.remediation) for report in reports)
    lines = [f"{'REMEDIATION':<{width}}  RESULT   WHAT"]
    for report in reports:
        told = [finding for finding in report.findings if finding.result is not Result.OK]
        rows = [(finding.result.value, f"{finding.subject}: {finding.message}") for finding in told]
        if not report.findings:
            rows = [("unknown", "only an alert says what it needs")]
        rows = rows or [("ok", f"{counted(len(report.findings), 'question')} asked")]
        lines += [f"{report.remediation:<{width}}  {result:<7}  {what}" for result, what in rows]
    return lines


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
        parts = parts_of(settings, holder, Metrics(__version__), database, utc_now)
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
    """The alerts of a notification, of a list, or one alert; what but the labels is missing is made up."""
    try:
        document = json.loads(body)
        if isinstance(document, dict) and isinstance(document.get("body"), dict):
            document = document["body"]
        if isinstance(document, dict) and "alerts" in document:
            return Notification.model_validate(document).alerts
        given = document if isinstance(document, list) else [document]
        return [_completed(one) for one in given]
    except (ValueError, TypeError) as error:
        problem = (
            error.errors(include_url=False, include_input=False)[0] if isinstance(error, ValidationError) else None
        )
        where = ".".join(map(str, problem["loc"])) + ": " + problem["msg"] if problem else str(error)
        raise ConfigError(f"--alert: not an alert or notification of Alertmanager: {where}") from error


def _completed(one: dict[str, Any]) -> Alert:
    """An alert of which perhaps only the labels are given, with the fingerprint that they have."""
    alert = Alert.model_validate({"status": "firing", "fingerprint": "0", "startsAt": utc_now().isoformat()} | one)
    return alert if "fingerprint" in one else alert.model_copy(update={"fingerprint": fingerprint_of(alert.labels)})


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
        *([f"    mode     {prospect.mode}"] if prospect.mode is not None else []),
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


@cli.group()
def audit() -> None:
    """Verify or export what was recorded."""


@audit.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_with_settings
def verify_command(settings: Settings, *, as_json: bool) -> None:
    """Find any change of the audit since it was written.

    Exit status: 0 it is as it was recorded, 1 it is not, 2 it cannot be read.
    """
    report = asyncio.run(_with_store(settings, verify))
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
        sys.exit(_NO)


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
        lines.append(f"  what is older than {report.pruned_before:%Y-%m-%d %H:%M:%S} UTC was deleted by retention")
    lines.append("intact" if report.is_intact else f"NOT INTACT: {counted(len(report.findings), 'finding')}")
    return "\n".join(lines)


@audit.command("export")
@click.option("--since", type=_Moment(), help="Events from then on: RFC 3339, or how long ago (24h).")
@click.option("--until", type=_Moment(), help="Events before then, written the same way.")
@click.option("--after", default="0-0", show_default=True, help="A cursor: only later events.")
@click.option("--follow", is_flag=True, help="Go on with new events until interrupted.")
@_with_settings
def export_command(
    settings: Settings, since: datetime | None, until: datetime | None, after: str, *, follow: bool
) -> None:
    """Print events as NDJSON, one a line, for a SIEM; each has the cursor where to go on."""
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
        asyncio.run(_with_store(settings, export))


async def _with_store(settings: Settings, use: Callable[[Database], Awaitable[T]]) -> T:
    database = Database(settings.store_url, audit_key=audit_key_of(settings))
    if not _has_run(database):
        raise ConfigError(f"there is no store at {database.url.database}")
    try:
        if not await is_current(database):
            raise ConfigError(
                "the store has the schema of another release; `remediator migrate` or `serve` brings it up"
            )
        return await use(database)
    finally:
        await database.close()
