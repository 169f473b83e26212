"""Finds where a catalog does not fit the configuration: connections, channels, secrets, places in scope, labels.

Warnings only: one catalog may serve several installations, and a run that lacks something says so itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from app.backends.action import Action
from app.backends.actions import actions
from app.backends.base import DEFAULT, Backend
from app.backends.check import Check
from app.backends.checks import checks
from app.backends.connections import Connections
from app.backends.messengers import channels
from app.backends.messengers import section as channel_section
from app.backends.preflight import naming
from app.backends.registry import backend, backends, target_kind
from app.backends.scope import Scope
from app.catalog.catalog import Catalog
from app.catalog.matchers import Matcher
from app.catalog.targets import spelled
from app.catalog.templates import contains_template, is_template, labels_used, texts
from app.domain.errors import Diagnostic
from app.domain.model import JsonObject
from app.domain.names import did_you_mean, listed
from app.domain.remediation import CheckSpec, Mode, Remediation, StepSpec

_ONE_ALERT = (
    'it uses the label "{label}", which is one of episodes.ignored_labels: alerts that differ only there are one, '
    "and the first is acted on; take the label from that setting, or from the remediation"
)


@dataclass(frozen=True, slots=True)
class Installation:
    """As much of a configuration as a catalog has to fit."""

    connections: Connections
    scope: Scope
    channel: str | None = None
    ignored_labels: tuple[str, ...] = ()

    def warnings(self, catalog: Catalog) -> tuple[Diagnostic, ...]:
        """Everything that is told of a catalog that is in order: by `check`, at the start, at a reload, by the API."""
        lacking = unconfigured(catalog, self.connections, self.scope, self.channel)
        return tuple(sorted([*catalog.warnings, *lacking, *ambiguous(catalog, self.ignored_labels)]))


def unconfigured(
    catalog: Catalog, connections: Connections, scope: Scope, channel: str | None = None
) -> list[Diagnostic]:
    """Yield a warning for each thing that a remediation lacks, with its place; `channel` is the one for all."""
    return [
        Diagnostic(catalog.sources[name].file, catalog.sources[name].line, 1, name, message)
        for name, remediation in catalog.remediations.items()
        for message in sorted(
            {*_missing(remediation, connections), *_out_of_scope(remediation, scope), *_unheard(remediation, channel)}
        )
    ]


def ambiguous(catalog: Catalog, ignored: Collection[str]) -> list[Diagnostic]:
    """One warning for each remediation and label that it uses although alerts that differ only there are one."""
    return [
        Diagnostic(catalog.sources[name].file, catalog.sources[name].line, 1, name, _ONE_ALERT.format(label=label))
        for name, remediation in catalog.remediations.items()
        for label in sorted(_labels(remediation, ignored) & {*ignored})
    ]


def _labels(remediation: Remediation, wanted: Collection[str]) -> set[str]:
    """The labels that its matchers and templates name; a template without any wanted name is not parsed."""
    found = {Matcher.parse(text).name for text in remediation.matchers}
    for text in texts(remediation.model_dump(mode="json", by_alias=True)):
        if is_template(text) and any(name in text for name in wanted):
            found |= labels_used(text)
    return found


def _missing(remediation: Remediation, connections: Connections) -> Iterator[str]:
    spec = remediation.target
    if spec is not None:
        kind = target_kind(spec.backend)
        named = spec.fields.get(kind.instance_field, DEFAULT)
        yield from _unless(named, backend(spec.backend), connections)
    if remediation.channel is not None:
        yield from _unlisted(remediation.channel, channels(connections), channel_section())
    for use, given in _uses(remediation):
        for field, section in naming(use.Params).items():
            named = given.get(
                field, use.Params.model_fields[field].default if field in use.Params.model_fields else None
            )
            if not named:
                continue
            if section in backends():
                yield from _unless(named, backend(section), connections)
            else:
                yield from _unlisted(named, connections.of(section), section)


def _unless(name: object, of: Backend[Any], connections: Connections) -> Iterator[str]:
    """The default instance of some backends needs no settings."""
    known = connections.of(of.name)
    if known or name != DEFAULT or of.unconfigured is None:
        yield from _unlisted(name, known, of.name)


def _unheard(remediation: Remediation, channel: str | None) -> Iterator[str]:
    """Warn of a question that no channel delivers: it expires."""
    asks = remediation.mode is Mode.APPROVE or remediation.earn is not None
    if asks and remediation.channel is None and channel is None:
        yield "it asks for approval but no channel is configured to tell people; set channel"


def _out_of_scope(remediation: Remediation, scope: Scope) -> Iterator[str]:
    """Warn of fixed targets that can never be in scope; targets from alerts are only known at run time."""
    place = None if remediation.target is None else spelled(remediation.target)
    objections = [None if place is None else scope.objection(place)]
    objections += [
        scope.params_objection({"url": url})
        for url in {_address(spec.with_.get("url")) for spec in _specs(remediation)} - {""}
    ]
    for objection in objections:
        if objection is not None:
            yield f"it can never run: {objection}"


def _address(url: object) -> str:
    """Scheme and host of a URL that are spelled out, or nothing."""
    scheme, slashes, rest = str(url or "").partition("://")
    authority = rest.partition("/")[0]
    if not authority or contains_template(authority):
        return ""
    try:
        return f"{scheme}{slashes}{authority}" if urlsplit(f"//{authority}").hostname else ""
    except ValueError:
        return ""


def _uses(remediation: Remediation) -> Iterator[tuple[Action[Any] | Check[Any], JsonObject]]:
    """Each step and check that the installed backends know, with its parameters."""
    for spec in _specs(remediation):
        known: Mapping[str, Action[Any] | Check[Any]] = actions() if isinstance(spec, StepSpec) else checks()
        name = spec.action if isinstance(spec, StepSpec) else spec.check
        if name in known:
            yield known[name], spec.with_


def _specs(remediation: Remediation) -> Iterator[StepSpec | CheckSpec]:
    yield from remediation.when
    for rung in remediation.rungs:
        yield from rung.steps
        yield from rung.verify


def _unlisted(name: object, known: Collection[str], section: str) -> Iterator[str]:
    if is_template(name) or name in known:
        return
    hint = did_you_mean(str(name), known) or f" (configured: {listed(sorted(known)) if known else 'none'})"
    yield f'connections.{section} has no "{name}"{hint}'
