"""`plan`: the plan for an alert."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from pydantic import ValidationError

from app import __version__
from app.catalog.loader import load
from app.catalog.reload import CatalogHolder
from app.cli.options import CANNOT_TELL, NO, has_run, with_settings
from app.domain.alerts import UNSET_YEAR, Alert, fingerprint_of
from app.domain.durations import format_duration
from app.domain.errors import ConfigError
from app.engine.explain import Explanation, Prospect, explain
from app.engine.stages.approval import step_in_words
from app.main import parts_of, utc_now
from app.settings import Settings
from app.store.db.database import Database
from app.store.migrations.migrate import is_current, migrate
from app.telemetry.metrics import Metrics


@click.command()
@click.option("--alert", "alert_file", required=True, type=click.File("rb"), help="An alert or a notification, or -.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings
def plan(settings: Settings, alert_file: Any, *, as_json: bool) -> None:
    """Print the plan for an alert now. Changes nothing.

    Asks the real targets and the store. Exit status: 0 the service would act or ask, 1 it would do nothing, 2 the plan
    cannot tell, because a server does not answer or is not configured.
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
    sys.exit(NO if all(one.is_certain for one in explanations) else CANNOT_TELL)


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
    if not has_run(database):
        await database.close()
        database = Database(f"sqlite:///{empty / 'empty.db'}")
        await migrate(database)
    elif not await is_current(database):
        await database.close()
        raise ConfigError("the store has the schema of another release; run `remediator migrate`")
    return database


def read_alerts(body: bytes) -> list[Alert]:
    """Return the alerts of a file, in any form in which Alertmanager or amtool writes them.

    One alert, a list of them, a webhook notification, or the output of `amtool alert -o json` and `GET /api/v2/alerts`
    (and `/groups`). Missing fields other than the labels are made up.
    """
    alerts: list[Alert] = []
    try:
        found = list(_given(json.loads(body)))
    except ValueError as error:
        raise ConfigError(f"--alert: not JSON: {error}; amtool prints JSON with -o json") from error
    try:
        alerts.extend(_completed(one) for one in found)
    except (ValueError, TypeError) as error:
        where = str(error)
        if isinstance(error, ValidationError):
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, problem["loc"])) + ": " + problem["msg"]
        which = f"alert {len(alerts) + 1} of {len(found)}: " if len(found) > 1 else ""
        raise ConfigError(f"--alert: not an alert or notification of Alertmanager: {which}{where}") from error
    return alerts


def _given(document: Any) -> Iterator[Any]:
    """The alerts in a document, as they are."""
    if isinstance(document, dict) and isinstance(document.get("body"), dict):
        document = document["body"]
    if document is None:  # amtool's output when there is none
        return
    if isinstance(document, list):
        for one in document:
            yield from _given(one)
    elif isinstance(document, dict) and isinstance(document.get("alerts"), list):
        yield from document["alerts"]
    else:
        yield document


def _completed(one: Any) -> Alert:
    """Return an alert, perhaps with labels only, with the fingerprint of its labels."""
    if not isinstance(one, dict):
        raise TypeError(f"{json.dumps(one)[:60]} is none")
    given = {name: value for name, value in one.items() if value is not None}
    status = given.get("status")
    if isinstance(status, dict):  # of the API: whether it is silenced or inhibited, which the guard `fresh` asks for
        given["status"] = "resolved" if _is_over(given.get("endsAt")) else "firing"
    alert = Alert.model_validate({"status": "firing", "fingerprint": "0", "startsAt": utc_now().isoformat()} | given)
    return alert if "fingerprint" in given else alert.model_copy(update={"fingerprint": fingerprint_of(alert.labels)})


def _is_over(ends_at: Any) -> bool:
    """Whether an alert of the API has ended: an active one has the time at which Alertmanager would give it up."""
    try:
        end = datetime.fromisoformat(str(ends_at))
    except ValueError:
        return False
    return end.tzinfo is not None and end.year > UNSET_YEAR and end <= utc_now()


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
            lines += [f"      {line}" for line in (step_in_words(step) if step.changes else ())]
        lines += [f"    verify   {check.check} within {format_duration(check.timeout)}" for check in found.verify]
        if found.settle is not None:
            lines.append(f"    settle   the alert must resolve within {format_duration(found.settle)}")
    for decision in prospect.decisions:
        said = ": ".join(part for part in (decision.verdict.value, decision.message) if part)
        lines.append(f"    guard    {decision.guard:<16}{said}")
    return lines
