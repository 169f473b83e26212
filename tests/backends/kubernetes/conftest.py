"""The `kube` fixture: a namespace of the real cluster, with the product's own client, actions and checks on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app.backends.action import Context
from app.backends.actions import actions
from app.backends.check import CheckContext
from app.backends.checks import checks
from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.kubernetes.backend import KUBERNETES, KubernetesConnection
from app.backends.scope import Scope
from app.domain.permissions import Permission
from app.domain.plans import Observation, PlannedStep, Target
from tests.support.aio import run
from tests.support.cluster import Cluster, workload
from tests.support.processes import wait_until

T = TypeVar("T")

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}


@dataclass(frozen=True)
class Kube:
    """One namespace, seen by the administrator (`cluster`) and by the product (through `kubeconfig`)."""

    cluster: Cluster
    namespace: str
    kubeconfig: Path | None

    def use(self, work: Callable[[Clients], Awaitable[T]]) -> T:
        """Do something with clients that live as long as it takes."""

        async def body() -> T:
            connections = Connections(
                kubernetes={"default": KubernetesConnection(kubeconfig=self.kubeconfig)}, timeout=timedelta(seconds=10)
            )
            clients = Clients(connections, Scope())
            try:
                return await work(clients)
            finally:
                await clients.close()

        return run(body())

    def resolve(self, kind: str, name: str, namespace: str | None = None) -> Target:
        """The target that these names lead to."""

        async def work(clients: Clients) -> Target:
            return await (await KUBERNETES.client(clients)).resolve(kind, namespace or self.namespace, name)

        return self.use(work)

    def target(self, kind: str, name: str) -> Target:
        """A target as the store gives it back, whether or not it exists."""
        key = f"kubernetes:{kind}/{self.namespace}/{name}"
        return Target(backend="kubernetes", key=key, kind=kind, namespace=self.namespace, name=name)

    def plan(self, action: str, target: Target, now: datetime = NOW, **params: Any) -> PlannedStep:
        """What the action would do, stored and loaded as the engine does between plan and apply."""
        subject = actions()[action]

        async def work(clients: Clients) -> PlannedStep:
            context = Context(clients=clients, scope=Scope(), run_id="run", target=target, now=now)
            return await subject.plan(context, subject.Params(**params))

        return PlannedStep.model_validate_json(self.use(work).model_dump_json())

    def apply(self, target: Target, step: PlannedStep) -> dict[str, Any]:
        """Do what was planned."""
        return self.use(lambda clients: actions()[step.action].apply(_context(clients, target), step))

    def undo(self, target: Target, step: PlannedStep) -> dict[str, Any]:
        """Take back what was done."""
        return self.use(lambda clients: actions()[step.action].undo(_context(clients, target), step))

    def taken_back(self, target: Target, step: PlannedStep, *, undone: bool = False) -> str:
        """What is no longer as the step left it."""
        return self.use(
            lambda clients: actions()[step.action].taken_back(_context(clients, target), step, undone=undone)
        )

    def observe(self, check: str, target: Target, after: Sequence[PlannedStep] = (), **params: Any) -> Observation:
        """One look of a check, after these steps."""
        subject = checks()[check]

        async def work(clients: Clients) -> Observation:
            context = CheckContext(clients=clients, scope=Scope(), target=target, now=NOW, steps=tuple(after))
            return await subject.observe(context, subject.Params(**params))

        return self.use(work)

    def as_account(self, name: str, *rules: Mapping[str, Sequence[str]]) -> Kube:
        """The same namespace, where the product is a service account with nothing but these rules."""
        kubeconfig = self.cluster.service_account_kubeconfig(self.namespace, name)
        if rules:
            self.cluster.grant(self.namespace, name, rules)
        return replace(self, kubeconfig=kubeconfig)

    def path(self, kind: str, name: str = "") -> str:
        """The API path of a workload, or of the collection of its kind."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/{PLURALS[kind]}" + (f"/{name}" if name else "")

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """A workload as it is."""
        return self.cluster.get(self.path(kind, name))

    def patch(self, kind: str, name: str, **spec: Any) -> None:
        """Change a workload's spec, as somebody else would."""
        self.cluster.patch(self.path(kind, name), {"spec": spec})

    def replace(self, kind: str, name: str, body: Mapping[str, Any], *, manager: str) -> None:
        """Write a whole workload, unless it has changed since it was read."""
        self.cluster.put(f"{self.path(kind, name)}?fieldManager={manager}", body)

    def deploy_image(self, kind: str, name: str, image: str, **annotations: str) -> None:
        """Change the pod template, as a deployment from a pipeline does."""
        spec = {"containers": [{"name": "main", "image": image}]}
        self.patch(kind, name, template={"metadata": {"annotations": annotations}, "spec": spec})

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a workload."""
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3D{name}"
        return self.cluster.get(path)["items"]

    def autoscaler(
        self,
        name: str,
        bounds: tuple[int, int],
        *,
        workload: str = "api",
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        """Put a Deployment under a HorizontalPodAutoscaler with this minimum and maximum."""
        spec = {
            "minReplicas": bounds[0],
            "maxReplicas": bounds[1],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload},
        }
        metadata = {"name": name, "ownerReferences": [owner] if owner else []}
        self.cluster.create(self._autoscalers, {"metadata": metadata, "spec": spec})

    def controlled(self, kind: str, name: str) -> None:
        """Create a workload that another object controls; a ConfigMap stands for the resource of an operator."""
        owner = self.cluster.create(f"/api/v1/namespaces/{self.namespace}/configmaps", {"metadata": {"name": "main"}})
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "main", "uid": owner["metadata"]["uid"]}
        self.create(kind, name)
        path, owners = self.path(kind, name), [reference | {"controller": True}]
        self.cluster.patch(path, {"metadata": {"ownerReferences": owners}})

    def kubectl_scale(self, kind: str, name: str, replicas: int) -> None:
        """Set the number as people do."""
        words = ("scale", f"{kind}/{name}", f"--replicas={replicas}", "--namespace", self.namespace)
        self.cluster.kubectl(*words)

    def unable(self, name: str) -> None:
        """Let an autoscaler say that it cannot scale, until its controller has looked again."""
        condition = {"type": "AbleToScale", "status": "False", "reason": "FailedGetScale", "message": "no matches"}
        times = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
        status = {"desiredReplicas": 0, "currentReplicas": 0, "conditions": [condition | times]}
        self.cluster.patch(f"{self._autoscalers}/{name}/status", {"status": status})

    def minimum(self, name: str) -> int:
        """The minReplicas of an autoscaler."""
        return self.cluster.get(f"{self._autoscalers}/{name}")["spec"]["minReplicas"]

    @property
    def _autoscalers(self) -> str:
        return f"/apis/autoscaling/v2/namespaces/{self.namespace}/horizontalpodautoscalers"

    def create(
        self, kind: str, name: str, replicas: int = 1, *, pods: Mapping[str, str] | None = None, **spec: Any
    ) -> None:
        """Create a workload whose pods get the annotations `pods`; does not wait for anything."""
        body = workload(name, replicas, pods or {})
        body["spec"] |= spec
        if kind == "StatefulSet":
            body["spec"]["serviceName"] = name
        if kind == "DaemonSet":
            del body["spec"]["replicas"]
        self.cluster.create(self.path(kind), body)

    def running(self, kind: str, name: str, replicas: int = 1, **spec: Any) -> Target:
        """Create a workload and wait until all of its pods are ready."""
        self.create(kind, name, replicas, **spec)
        self.wait_complete(kind, name)
        return self.target(kind, name)

    def wait_complete(self, kind: str, name: str) -> None:
        """Wait until kubectl, as a second opinion, says that the rollout is complete."""
        words = ("rollout", "status", f"{kind}/{name}", "--namespace", self.namespace, "--timeout=60s")
        self.cluster.kubectl(*words)

    def wait_status(self, kind: str, name: str, holds: Callable[[Mapping[str, Any]], bool]) -> None:
        """Wait until the status of a workload is as a test needs it, and of the newest spec."""

        def is_so() -> bool:
            found = self.get(kind, name)
            status = found.get("status", {})
            return status.get("observedGeneration") == found["metadata"]["generation"] and holds(status)

        wait_until(is_so, 60, f"the status of {kind} {name}")


def _context(clients: Clients, target: Target) -> Context:
    return Context(clients=clients, scope=Scope(), run_id="run", target=target, now=NOW + timedelta(minutes=1))


def rules_of(permissions: Sequence[Permission]) -> list[dict[str, list[str]]]:
    """The RBAC rules that declared permissions stand for."""
    return [{"apiGroups": [row.group], "resources": [row.resource], "verbs": list(row.verbs)} for row in permissions]


@pytest.fixture
def declared() -> Callable[[Sequence[Permission]], list[dict[str, list[str]]]]:
    """Turns declared permissions into RBAC rules."""
    return rules_of


@pytest.fixture
def kube(cluster: Cluster, namespace: str) -> Kube:
    """A namespace of the real cluster, seen as its administrator."""
    return Kube(cluster, namespace, cluster.kubeconfig)
