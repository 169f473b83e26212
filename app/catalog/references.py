"""Finds where a catalog does not fit the configuration: connections, channels, secrets, places in scope, labels.

Warnings only: one catalog may serve several installations, and a run that lacks something says so itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.backends.connection import Connections
from app.catalog.catalog import Catalog
from app.catalog.matchers import Matcher
from app.catalog.names import did_you_mean, listed
from app.catalog.templates import contains_template, is_template, labels_used, texts
from app.domain.errors import Diagnostic
from app.domain.plans import Target
from app.domain.remediation import CheckSpec, Mode, Remediation, StepSpec, TargetSpec
from app.domain.scope import Scope

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
    """Return the labels that its matchers and templates name; a template without any wanted name is not parsed."""
    found = {Matcher.parse(text).name for text in remediation.matchers}
    for text in texts(remediation.model_dump(mode="json", by_alias=True)):
        if is_template(text) and any(name in text for name in wanted):
            found |= labels_used(text)
    return found


def _missing(remediation: Remediation, connections: Connections) -> Iterator[str]:
    target = remediation.target
    if target is not None and target.postgres is not None:
        yield from _unless(target.postgres.instance, connections.postgres, "postgres")
    if target is not None and target.redis is not None:
        yield from _unless(target.redis.instance, connections.redis, "redis")
    if remediation.channel is not None:
        yield from _unless(remediation.channel, connections.notify, "notify")
    for spec in _specs(remediation):
        if spec.with_.get("channel"):
            yield from _unless(spec.with_["channel"], connections.notify, "notify")
        if spec.with_.get("bearer_token"):
            yield from _unless(spec.with_["bearer_token"], connections.secrets, "secrets")
        if isinstance(spec, CheckSpec) and spec.check == "prometheus.query" and connections.prometheus is None:
            yield "connections.prometheus is not configured"


def _unheard(remediation: Remediation, channel: str | None) -> Iterator[str]:
    """Warn of a question that no channel delivers: it expires."""
    asks = remediation.mode is Mode.APPROVE or remediation.earn is not None
    if asks and remediation.channel is None and channel is None:
        yield "it asks for approval but no channel is configured to tell people; set channel"


def _out_of_scope(remediation: Remediation, scope: Scope) -> Iterator[str]:
    """Warn of fixed targets that can never be in scope; targets from alerts are only known at run time."""
    hosts = {_host(spec.with_.get("url")) for spec in _specs(remediation)} - {""}
    objections = [scope.objection(place) for place in _spelled(remediation.target)]
    for objection in [*objections, *(scope.host_objection(host) for host in hosts)]:
        if objection is not None:
            yield f"it can never run: {objection}"


def _spelled(target: TargetSpec | None) -> Iterator[Target]:
    """As much of a target as no alert fills in."""
    if target is None:
        return
    if target.kubernetes is not None and not is_template(target.kubernetes.namespace):
        kind = "" if is_template(target.kubernetes.kind) else target.kubernetes.kind
        yield Target(backend="kubernetes", key="kubernetes:", kind=kind, namespace=target.kubernetes.namespace)
    for backend, named in (("postgres", target.postgres), ("redis", target.redis)):
        if named is not None and named.database is not None and not contains_template(named.model_dump()):
            yield Target(backend=backend, key=f"{backend}:{named.instance}/{named.database}")


def _host(url: object) -> str:
    """Return the host of a URL that is spelled out, or nothing."""
    authority = str(url or "").partition("://")[2].partition("/")[0]
    if not authority or contains_template(authority):
        return ""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def _specs(remediation: Remediation) -> Iterator[StepSpec | CheckSpec]:
    yield from remediation.when
    for rung in remediation.rungs:
        yield from rung.steps
        yield from rung.verify


def _unless(name: object, known: Collection[str], section: str) -> Iterator[str]:
    if is_template(name) or name in known:
        return
    hint = did_you_mean(str(name), known) or f" (configured: {listed(sorted(known)) if known else 'none'})"
    yield f'connections.{section} has no "{name}"{hint}'
