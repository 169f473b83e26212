"""What may be touched: the border that no label value can move.

A value that the catalog spells out was written by the operator and is within scope. A value that a template made from
an alert must match a pattern of the configured scope. Some places are refused unless the scope names them exactly.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from pydantic import Field

from app.domain.model import Value
from app.domain.plans import Target

PROTECTED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})


class Scope(Value):
    """Patterns (`*` and `?`) of what values that come from labels may name."""

    namespaces: tuple[str, ...] = Field(default=(), description="Kubernetes namespaces.")
    postgres: tuple[str, ...] = Field(default=(), description="PostgreSQL targets as instance/database.")
    redis: tuple[str, ...] = Field(default=(), description="Redis targets as instance/database number.")
    hosts: tuple[str, ...] = Field(default=(), description="Hosts that http.request and http.ok may call.")
    own_namespace: str = Field(
        default="",
        description="Where the remediator runs (in a pod it is found); never touched unless `namespaces` names it.",
    )

    def objection(self, target: Target, *, templated: bool) -> str | None:
        """Say why `target` is out of scope, or None; `templated`: whether any part of it came from the alert."""
        if target.backend == "kubernetes":
            return self._namespace_objection(target.namespace, templated=templated)
        patterns: Collection[str] = {"postgres": self.postgres, "redis": self.redis}.get(target.backend, ())
        place = target.key.partition(":")[2]
        if not templated or target.backend == "none" or _matches(place, patterns):
            return None
        return f"{target.backend} target {place!r} comes from the alert and is not in scope.{target.backend}"

    def host_objection(self, host: str, *, templated: bool) -> str | None:
        """Say why `host` must not be called, or None."""
        if not templated or _matches(host, self.hosts):
            return None
        return f"host {host!r} comes from the alert and is not in scope.hosts"

    def _namespace_objection(self, namespace: str, *, templated: bool) -> str | None:
        if namespace in PROTECTED_NAMESPACES or (namespace and namespace == self.own_namespace):
            if namespace in self.namespaces:
                return None
            return f"namespace {namespace!r} is protected; only scope.namespaces can name it"
        if not templated or _matches(namespace, self.namespaces):
            return None
        return f"namespace {namespace!r} comes from the alert and is not in scope.namespaces"


def _matches(value: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
