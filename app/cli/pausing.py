"""`pause`, `resume` and `status`: stop everything, let it go on, and list the pauses; in the words of the API."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import click

from app.cli.options import CANNOT_TELL
from app.cli.remote import Service, token_in, with_token_file
from app.domain.errors import AppError

_URL = "http://127.0.0.1:8080"
_WHY = "stopped from the command line"


def _asking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its service; an error ends the command in words."""

    @click.option("--url", envvar="REMEDIATOR_URL", default=_URL, show_default=True, help="Address of the service.")
    @with_token_file
    @wraps(command)
    def asking(url: str, token_file: Path | None, **given: Any) -> Any:
        try:
            return command(Service(url, token_in(token_file)), **given)
        except AppError as error:
            click.echo(f"remediator: {error.message}", err=True)
            sys.exit(CANNOT_TELL)

    return asking


_remediation = click.option("--remediation", help="Only this remediation.")
_target = click.option("--target", help="Only this target, by its key, as runs show it.")


@click.command("pause")
@click.option("--why", default=_WHY, show_default=True, help="The reason; every decision shows it.")
@click.option("--for", "duration", help="Duration, such as 2h; without it the pause has NO END.")
@click.option("--until", help="End of the pause, as RFC 3339.")
@_remediation
@_target
@_asking
def pause(service: Service, **given: str | None) -> None:
    """Stop everything on every replica. A call that is under way finishes; nothing further begins."""
    names = {"why": "why", "duration": "for", "until": "until", "remediation": "remediation", "target": "target"}
    body = {names[name]: value for name, value in given.items() if value is not None}
    _say(service.put("/pause", body))


@click.command("resume")
@_remediation
@_target
@click.option("--holder", help="The holder of the pause; default: you. Another person's pause needs an admin.")
@_asking
def resume(service: Service, **given: str | None) -> None:
    """Take your pause away: of everything, or of the given remediation or target."""
    _say(service.delete("/pause", {name: value for name, value in given.items() if value is not None}))


@click.command("status")
@_asking
def status(service: Service) -> None:
    """List the pauses with holder, reason and end. Exit status: 0 no pause, 1 there is one."""
    found = service.get("/pause")
    _say(found)
    if found["items"]:
        sys.exit(1)


def _say(answer: Mapping[str, Any]) -> None:
    for line in _lines(answer):
        click.echo(line)
    for warning in answer.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    if not answer["items"]:
        yield "nothing is paused"
    for one in answer["items"]:
        what = "EVERYTHING" if one["scope"] == "all" else f"{one['scope']} {one['subject']}"
        end = f"until {one['until']}" if one["until"] else "WITHOUT AN END"
        yield f"paused: {what}, by {one['holder']} since {one['since']}, {end}: {one['why']}"
