"""Kubernetes clusters: workloads as targets, namespaces as scope, and the way from a pod to its workload."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from app.backends.base import DEFAULT, INSTANCE, Backend, ScopeBlock, TargetKind, matches
from app.backends.kubernetes.objects import TARGET_KINDS, WORKLOAD_KINDS, ObjectRef, target_key, target_ref
from app.backends.secrets import unreadable
from app.domain.errors import PermanentError
from app.domain.external_facts import Population
from app.domain.findings import Finding
from app.domain.model import Value
from app.domain.names import did_you_mean, listed
from app.domain.plans import Target
from app.domain.remediation import Template

if TYPE_CHECKING:
    from app.backends.connections import Connections
    from app.backends.instances import Clients
    from app.backends.kubernetes.client import KubernetesClient
    from app.backends.preflight import Asking, Need

PROTECTED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})
# Where Kubernetes tells a pod the namespace it runs in.
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POD = "Pod"  # stands for the workload that owns it, which is what is acted on
_MAX_LABEL, _MAX_NAME = 63, 253
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_PARTS = 3  # of a key: kind, namespace, name; before them the cluster, unless it is the default one


class KubernetesConnection(Value):
    """A cluster: a kubeconfig file, or none for the service account of the pod that the remediator runs in."""

    kubeconfig: Path | None = None
    context: str | None = None


class KubernetesTarget(Value):
    """An object of the Kubernetes API; a Pod stands for the workload that owns it."""

    cluster: Template = Field(default=DEFAULT, description="A cluster of connections.kubernetes.")
    kind: Template = Field(description="Deployment, StatefulSet, DaemonSet, or Pod (its owner is what is acted on).")
    namespace: Template
    name: Template


class KubernetesScope(ScopeBlock):
    """Which objects may be acted on."""

    namespaces: tuple[str, ...] = Field(
        default=(), description="Namespaces of the default cluster; of another one as cluster/namespace."
    )
    kinds: tuple[str, ...] = Field(default=WORKLOAD_KINDS, description="Kinds of objects.")
    own_namespace: str = Field(
        default="",
        description="Where the remediator runs (in a pod it is found); never touched unless `namespaces` names it.",
    )

    def objection(self, target: Target) -> str | None:
        """Its namespace comes first, then its kind."""
        return self._namespace_objection(target.at or DEFAULT, target.namespace) or self._kind_objection(target.kind)

    def _namespace_objection(self, cluster: str, namespace: str) -> str | None:
        place = namespace if cluster == DEFAULT else f"{cluster}/{namespace}"
        if namespace in PROTECTED_NAMESPACES or (namespace and namespace == self.own_namespace):
            if {place, f"{cluster}/{namespace}"} & {*self.namespaces}:
                return None
            return f"namespace {place!r} is protected; only its exact name in scope.kubernetes.namespaces brings it in"
        if any(matches(cluster, (outer,)) and matches(namespace, (inner,)) for outer, inner in self.pairs()):
            return None
        return f"namespace {place!r} is not in scope; add it to scope.kubernetes.namespaces and restart"

    def _kind_objection(self, kind: str) -> str | None:
        if kind in {"", _POD} or matches(kind, self.kinds):
            return None
        return f"kind {kind!r} is not in scope; add it to scope.kubernetes.kinds and restart"

    def pairs(self) -> list[tuple[str, str]]:
        """The patterns of cluster and namespace."""
        split = (one.rpartition("/") for one in self.namespaces)
        return [(cluster or DEFAULT, namespace) for cluster, _, namespace in split]


class KubernetesTargets(TargetKind):
    """Workloads, and pods that stand for them."""

    Fields = KubernetesTarget
    instance_field = "cluster"
    example = "kubernetes:Deployment/shop/api"

    def field_objection(self, field: str, value: str) -> str | None:
        """As Kubernetes names things."""
        if field == "kind":
            near = did_you_mean(value, TARGET_KINDS)
            return None if value in TARGET_KINDS else f'"{value}" is not one of {listed(TARGET_KINDS)}{near}'
        pattern, longest, noun = {
            "cluster": (INSTANCE, _MAX_LABEL, "the name of a connection"),
            "namespace": (_LABEL, _MAX_LABEL, "a namespace"),
            "name": (_NAME, _MAX_NAME, "a name"),
        }[field]
        fits = len(value) <= longest and pattern.fullmatch(value)
        return None if fits else f'"{value[: longest + 1]}" cannot be {noun}'

    def known(self, fields: Mapping[str, Any]) -> Target | None:
        """The scope goes by the namespace."""
        cluster, namespace = fields.get("cluster", DEFAULT), fields.get("namespace")
        if cluster is None or namespace is None:
            return None
        at = "" if cluster == DEFAULT else cluster
        return Target(
            backend="kubernetes", key="kubernetes:", kind=fields.get("kind") or "", namespace=namespace, at=at
        )

    async def claim(self, clients: Clients, fields: KubernetesTarget) -> Target:  # noqa: ARG002 - the fields say it all
        """As the fields name it: perhaps a pod."""
        ref = target_ref(fields.kind, fields.namespace, fields.name)
        at = "" if fields.cluster == DEFAULT else fields.cluster
        return Target(
            backend="kubernetes",
            key=target_key(ref, fields.cluster),
            kind=ref.kind,
            namespace=ref.namespace,
            name=ref.name,
            at=at,
        )

    async def resolve(self, clients: Clients, claimed: Target) -> Target:
        """The workload, which exists; for a pod the one that owns it."""
        cluster = await KUBERNETES.client(clients, claimed.at or DEFAULT)
        return await cluster.resolve(claimed.kind, claimed.namespace, claimed.name)

    def key_objection(self, rest: str) -> str | None:
        """Kind, namespace and name, perhaps with the cluster before them."""
        shape = f"for example {self.example}"
        parts = rest.split("/")
        if len(parts) == _PARTS + 1 and INSTANCE.fullmatch(parts[0]) and parts[0] != DEFAULT:
            parts = parts[1:]
        if len(parts) != _PARTS:
            return f"must have a kind, a namespace and a name, {shape}"
        kind, namespace, name = parts
        if kind not in WORKLOAD_KINDS:
            near = did_you_mean(kind, WORKLOAD_KINDS)
            return f"must have a kind that runs act on ({', '.join(WORKLOAD_KINDS)}), {shape}{near}"
        try:
            ref: ObjectRef = target_ref(kind, namespace, name)
        except PermanentError as error:
            return f"cannot be a target: {error.message}"
        return None if ref.name else f"must have a name, {shape}"

    def instance(self, key: str) -> str:
        """The default cluster where the key names none."""
        parts = key.partition(":")[2].split("/")
        return parts[0] if len(parts) > _PARTS else DEFAULT


class KubernetesBackend(Backend["KubernetesClient"]):
    """Clusters and their workloads."""

    name = "kubernetes"
    title = "Kubernetes"
    instances = "Clusters by name. Without any, the default one is where the remediator's own pod runs."
    Connection = KubernetesConnection
    unconfigured = KubernetesConnection()
    Scope = KubernetesScope
    target = KubernetesTargets()

    async def connect(self, clients: Clients, instance: str) -> KubernetesClient:
        """A client of one cluster; raises PermanentError where its credentials cannot be read."""
        from app.backends.kubernetes.client import KubernetesClient  # noqa: PLC0415 - 20 MiB, only where needed

        connection = clients.connections.instance(self, instance)
        return await KubernetesClient.connect(connection, clients.connections.timeout, instance)

    def file_problems(self, connection: KubernetesConnection) -> Iterator[tuple[str, str]]:
        """Read the kubeconfig, and each file that it names."""
        file = connection.kubeconfig
        if file is None:
            return
        if why := unreadable(file):
            yield "kubeconfig", why
            return
        from app.backends.kubernetes.files import problems  # noqa: PLC0415 - a second, only where there is a kubeconfig

        for problem in problems(connection, file):
            yield "kubeconfig", problem

    def is_reachable(self, connections: Connections, block: KubernetesScope) -> bool:  # noqa: ARG002 - a pod needs none
        """A pod needs no connection to reach its own cluster, and without a namespace nothing is acted on."""
        return bool(block.namespaces)

    def protect(
        self,
        block: KubernetesScope,
        instances: Mapping[str, KubernetesConnection],  # noqa: ARG002 - the pod knows
        store_url: str,  # noqa: ARG002 - it is no object of a cluster
    ) -> KubernetesScope:
        """The namespace that this pod runs in."""
        return block.model_copy(update={"own_namespace": block.own_namespace or _namespace_of_this_pod()})

    def neighbourhood(self, target: Target) -> str:
        """The namespace of a workload."""
        place = f"{target.at}/{target.namespace}" if target.at else target.namespace
        return f"namespace {place}"

    async def population(self, clients: Clients, target: Target) -> Population:
        """The workloads of the namespace."""
        cluster = await self.client(clients, self.instance(target))
        seen = await cluster.population(target.namespace)
        return seen.model_copy(update={"where": self.neighbourhood(target)})

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:
        """Return questions for the rights that its steps and checks declare, and a dry run where one is possible."""
        from app.backends.kubernetes.preflight import needs  # noqa: PLC0415 - it imports all actions

        fields = asking.target(self.name)
        return needs(asking, KubernetesTarget.model_validate(fields)) if fields is not None else iter(())


def _namespace_of_this_pod() -> str:
    try:
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


BACKEND = KUBERNETES = KubernetesBackend()
