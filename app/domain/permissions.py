"""The rights that actions and checks need; a test compares the chart's roles with these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permission:
    """One right: verbs on a Kubernetes resource, a PostgreSQL role, or a Redis command."""

    backend: str  # kubernetes | postgres | redis
    group: str = ""  # Kubernetes API group, "" for core
    resource: str = ""  # deployments, pods, deployments/scale; or a PostgreSQL role; or a Redis command
    verbs: tuple[str, ...] = ()
