"""Finds the connections, channels and secrets that a catalog names and the configuration does not have.

Warnings only: one catalog may serve several installations, and a run that needs what is missing says so itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from app.catalog.catalog import Catalog
from app.catalog.names import did_you_mean, listed
from app.catalog.templates import is_template
from app.clients.connections import Connections
from app.domain.errors import Diagnostic
from app.domain.remediation import CheckSpec, Remediation, StepSpec


def unconfigured(catalog: Catalog, connections: Connections) -> list[Diagnostic]:
    """One warning for each remediation and name, where the remediation is written."""
    return [
        Diagnostic(catalog.sources[name].file, catalog.sources[name].line, 1, name, message)
        for name, remediation in catalog.remediations.items()
        for message in sorted(set(_missing(remediation, connections)))
    ]


def _missing(remediation: Remediation, connections: Connections) -> Iterator[str]:
    target = remediation.target
    if target is not None and target.postgres is not None:
        yield from _unless(target.postgres.instance, connections.postgres, "postgres")
    if target is not None and target.redis is not None:
        yield from _unless(target.redis.instance, connections.redis, "redis")
    for spec in _specs(remediation):
        if spec.with_.get("channel"):
            yield from _unless(spec.with_["channel"], connections.notify, "notify")
        if spec.with_.get("bearer_token"):
            yield from _unless(spec.with_["bearer_token"], connections.secrets, "secrets")
        if isinstance(spec, CheckSpec) and spec.check == "prometheus.query" and connections.prometheus is None:
            yield "connections.prometheus is not configured"


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
