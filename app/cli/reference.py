"""`backends`: the installed backends, and the form of their targets, settings, actions and checks."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app import __version__
from app.backends.actions import actions
from app.backends.base import Backend
from app.backends.checks import checks
from app.backends.registry import GROUP, backends
from app.cli.options import with_settings
from app.domain.names import did_you_mean
from app.settings import Settings


@click.command("backends")
@click.argument("name", required=False)
@with_settings
def backends_command(settings: Settings, name: str | None) -> None:  # noqa: ARG001 - plug-ins that are broken end it
    """List the installed backends, or explain one: its targets, settings, actions and checks."""
    known = backends()
    if name is not None and name not in known:
        raise click.BadParameter(f"there is no backend {name!r}{did_you_mean(name, known)}")
    if name is None:
        width = max(map(len, known))
        for one in known.values():
            click.echo(f"{one.name:<{width}}  {_package(one):<24}  {one.title}")
    else:
        click.echo("\n".join(_explained(known[name])))


def _package(one: Backend[Any]) -> str:
    """The distribution that has it, with its version."""
    plugged = {point.name: point.dist for point in entry_points(group=GROUP)}
    dist = plugged.get(one.name)
    return f"{dist.name} {dist.version}" if dist else f"remediator {__version__}"


def _explained(one: Backend[Any]) -> Iterator[str]:
    yield f"{one.title} ({one.name}), of {_package(one)}" + (f": {one.docs}" if one.docs else "")
    if one.target is not None:
        yield from _model(f"target.{one.name}", one.target.Fields)
        yield f"    its key, for example {one.target.example}"
    yield from _model(f"connections.{one.name}.<name>", one.Connection)
    if one.Scope is not None:
        yield from _model(f"scope.{one.name}", one.Scope)
    for noun, known in (("action", actions()), ("check", checks())):
        for use in known.values():
            if type(use).__module__.startswith(f"{type(one).__module__.rpartition('.')[0]}."):
                yield from _model(f"{noun} {use.name}: {use.summary}", use.Params)


def _model(title: str, model: type[BaseModel]) -> Iterator[str]:
    yield ""
    yield title
    for name, field in model.model_fields.items():
        yield f"    {field.alias or name}{_default(field)}" + (f": {field.description}" if field.description else "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    default = field.get_default(call_default_factory=True)
    return "" if default in (None, "", (), {}, []) else f" (default {_words(default)})"


def _words(default: object) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
