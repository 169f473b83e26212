"""The border of all actions: neither a label nor a catalog can move it.

Only targets that the configuration names are within it. Some places need their exact name.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from app.domain.model import Value
from app.domain.plans import Plan, Target

PROTECTED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})
_POD = "Pod"  # stands for the workload that owns it


# host:port, [IPv6]:port, [IPv6] and whatever is a URL; IPv6 itself and patterns of it have colons too.
_NO_HOST = re.compile(r"[^:]*:[0-9]+|\[.*:.*\](:.*)?|.*/.*")


def _host(text: str) -> str:
    if _NO_HOST.fullmatch(text):
        raise ValueError(f"{text!r} matches no host; write a host without port, for example shop.example or ::1")
    return text


class Scope(Value):
    """Patterns (`*` and `?`) of targets that the service may act on; it touches no other target."""

    namespaces: tuple[str, ...] = Field(default=(), description="Kubernetes namespaces.")
    kinds: tuple[str, ...] = Field(
        default=("Deployment", "StatefulSet", "DaemonSet"), description="Kinds of Kubernetes objects."
    )
    postgres: tuple[str, ...] = Field(default=(), description="PostgreSQL targets as instance/database.")
    redis: tuple[str, ...] = Field(default=(), description="Redis targets as instance/database number.")
    hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = Field(
        default=(), description="Hosts that http.request and http.ok may call."
    )
    own_namespace: str = Field(
        default="",
        description="Where the remediator runs (in a pod it is found); never touched unless `namespaces` names it.",
    )
    own_databases: tuple[str, ...] = Field(
        default=(),
        description="PostgreSQL targets that are the remediator's own store (found by itself); never touched.",
    )

    def objection(self, target: Target) -> str | None:
        """Say why `target` is out of scope and which setting would bring it in, or None."""
        if target.backend == "kubernetes":
            return self._namespace_objection(target.namespace) or self._kind_objection(target.kind)
        place = target.key.partition(":")[2]
        if target.backend == "postgres" and place in self.own_databases:
            return f"postgres target {place!r} is the remediator's own store"
        patterns: Collection[str] = {"postgres": self.postgres, "redis": self.redis}.get(target.backend, ())
        if target.backend == "none" or _matches(place, patterns):
            return None
        return f"{target.backend} target {place!r} is not in scope; add it to scope.{target.backend} and restart"

    def host_objection(self, host: str) -> str | None:
        """Say why `host` must not be called, or None."""
        if _matches(host, self.hosts):
            return None
        return f"host {host!r} is not in scope; add it to scope.hosts and restart"

    def url_objection(self, url: str) -> str | None:
        """Say why the host of `url` must not be called, or None."""
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        return self.host_objection(host) if host else "the URL names no host"

    def plan_objection(self, plan: Plan) -> str | None:
        """Say which part of `plan` is out of scope, or None."""
        params = [*(step.params for step in plan.steps), *(check.params for check in plan.verify)]
        urls = [str(one["url"]) for one in params if "url" in one]
        return self.objection(plan.target) or next(filter(None, map(self.url_objection, urls)), None)

    def _namespace_objection(self, namespace: str) -> str | None:
        if namespace in PROTECTED_NAMESPACES or (namespace and namespace == self.own_namespace):
            if namespace in self.namespaces:
                return None
            return f"namespace {namespace!r} is protected; only its exact name in scope.namespaces brings it in"
        if _matches(namespace, self.namespaces):
            return None
        return f"namespace {namespace!r} is not in scope; add it to scope.namespaces and restart"

    def _kind_objection(self, kind: str) -> str | None:
        if kind in {"", _POD} or _matches(kind, self.kinds):
            return None
        return f"kind {kind!r} is not in scope; add it to scope.kinds and restart"


def _matches(value: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
