"""Workloads that Argo CD or Flux reconcile, applied as they do: what may be scaled, and what may be restarted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.plans import PlannedStep, Target
from app.domain.reasons import Reason
from tests.support.cluster import workload

SCALE = "kubernetes.scale"
RESTART = "kubernetes.rollout_restart"
KUSTOMIZATION = {
    "kustomize.toolkit.fluxcd.io/name": "shop",
    "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
}
RELEASE = {"helm.toolkit.fluxcd.io/name": "shop", "helm.toolkit.fluxcd.io/namespace": "flux-system"}
INSTANCE = {"app.kubernetes.io/instance": "shop"}
TRACKED = {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:ns/api"}
SERVER_SIDE = ("--server-side", "--force-conflicts")


@dataclass(frozen=True)
class Way:
    """How one tool applies a Deployment and marks it."""

    manager: str
    how: tuple[str, ...]
    labels: dict[str, str]
    annotations: dict[str, str]
    whose: str

    def put(self, kube: Any, replicas: int | None) -> None:
        """Apply the Deployment `api` from git."""
        put(kube, self.manager, self.how, deployment(self.labels, self.annotations, replicas))


HELM_3 = "flux helm 3"  # owns what the API server fills in and notes nothing of what it has from the chart
WAYS = {
    "flux": Way("kustomize-controller", SERVER_SIDE, KUSTOMIZATION, {}, "Flux Kustomization flux-system/shop"),
    HELM_3: Way("helm-controller", (), RELEASE, {}, "Flux HelmRelease flux-system/shop"),
    "flux helm 4": Way("helm-controller", SERVER_SIDE, RELEASE, {}, "Flux HelmRelease flux-system/shop"),
    "argo": Way("argocd-controller", SERVER_SIDE, {}, TRACKED, "Argo CD application shop"),
    "argo, client side": Way("argocd-controller", (), {}, TRACKED, "Argo CD application shop"),
    "argo by label": Way("argocd-application-controller", (), INSTANCE, {}, "Argo CD application shop"),
}
PROVABLE = {name: way for name, way in WAYS.items() if name != HELM_3}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
each_provable_way = pytest.mark.parametrize("way", PROVABLE.values(), ids=PROVABLE)


def put(kube: Any, manager: str, how: tuple[str, ...], body: dict[str, Any]) -> None:
    """Apply an object under the name of a field manager."""
    verb = "create" if manager == "helm-controller" and not how else "apply"
    words = (verb, *how, "--field-manager", manager, "--namespace", kube.namespace, "-f", "-")
    kube.cluster.kubectl(*words, stdin=json.dumps(body))


def deployment(labels: dict[str, str], annotations: dict[str, str], replicas: int | None) -> dict[str, Any]:
    """The Deployment `api` as it is in git, with or without a number of replicas."""
    body = workload("api", replicas or 0, {})
    if replicas is None:
        del body["spec"]["replicas"]
    body["metadata"]["labels"] |= labels
    body["metadata"]["annotations"] = annotations
    return {"apiVersion": "apps/v1", "kind": "Deployment"} | body


def plan(kube: Any, later: timedelta = timedelta(), action: str = SCALE, **params: Any) -> PlannedStep:
    """What would be done to the Deployment `api` now, or so much later."""
    target: Target = kube.target("Deployment", "api")
    given = params or ({"to": 5} if action == SCALE else {})
    return kube.plan(action, target, now=datetime.now(UTC) + later, **given)


def refusals(step: PlannedStep) -> list[tuple[Reason, bool]]:
    """What forbids the step, but for a rollout that has only begun."""
    seen = [(one.reason, one.passes) for one in step.conditions]
    return [one for one in seen if one[0] is not Reason.ROLLOUT_IN_PROGRESS]


DENIED = [(Reason.OWNED_BY_GITOPS, False)]


@each_way
def test_replicas_that_are_in_git_are_left_alone(kube: Any, way: Way) -> None:
    """The refusal says whose they are and what to do."""
    way.put(kube, 2)
    step = plan(kube)
    assert DENIED == refusals(step)
    message = step.conditions[0].message
    assert f"reconciled by {way.whose}, and {way.manager} owns spec.replicas" in message
    assert "remove spec.replicas from git" in message


@each_provable_way
def test_replicas_that_are_not_in_git_may_be_set(kube: Any, way: Way) -> None:
    """And stay so: applying from git again does not take them back, and neither is a second scaling refused."""
    way.put(kube, None)
    step = plan(kube)
    assert [] == refusals(step)
    assert way.whose == step.before["reconciled_by"]
    kube.apply(kube.target("Deployment", "api"), step)
    way.put(kube, None)
    assert 5 == kube.get("Deployment", "api")["spec"]["replicas"]
    assert [] == refusals(plan(kube, to=6))


@each_provable_way
def test_a_restart_outlives_the_next_reconciliation(kube: Any, way: Way) -> None:
    """The annotation is not in git, so it is not taken away; the step's facts say who reconciles."""
    way.put(kube, 1)
    step = plan(kube, action=RESTART)
    assert [] == refusals(step)
    assert way.whose == step.before["reconciled_by"]
    kube.apply(kube.target("Deployment", "api"), step)
    way.put(kube, 1)
    template = kube.get("Deployment", "api")["spec"]["template"]["metadata"]
    assert step.desired["restarted_at"] in template["annotations"].values()


def test_what_somebody_set_just_now_may_be_taken_back(kube: Any) -> None:
    """A change by hand takes the field from Flux until it looks; one that Flux lets be for long is nobody's there."""
    put(kube, "kustomize-controller", SERVER_SIDE, deployment(KUSTOMIZATION, {}, 2))
    kube.patch("Deployment", "api", replicas=3)
    step = plan(kube)
    assert [(Reason.OWNED_BY_GITOPS, True)] == refusals(step)
    assert "set spec.replicas less than an hour ago" in step.conditions[0].message
    assert [] == refusals(plan(kube, timedelta(hours=1, minutes=1)))


def test_what_kubectl_scale_set_is_its_own(kube: Any) -> None:
    """The API server notes no time for it; replicas that people scale by hand are not in git as a rule."""
    put(kube, "kustomize-controller", SERVER_SIDE, deployment(KUSTOMIZATION, {}, None))
    kube.cluster.kubectl("scale", "deployment/api", "--replicas=3", "--namespace", kube.namespace)
    assert [] == refusals(plan(kube))


def test_replicas_under_helm_3_are_never_proven_free(kube: Any) -> None:
    """Until somebody else sets them: whether the chart has them cannot be told."""
    WAYS[HELM_3].put(kube, None)
    assert DENIED == refusals(plan(kube))
    kube.cluster.kubectl("scale", "deployment/api", "--replicas=3", "--namespace", kube.namespace)
    assert [] == refusals(plan(kube))


def test_without_managed_fields_nothing_is_proven(kube: Any) -> None:
    """An object whose managers were wiped, as some migrations advise, is not scaled."""
    put(kube, "kustomize-controller", SERVER_SIDE, deployment(KUSTOMIZATION, {}, None))
    assert [] == refusals(plan(kube))
    kube.cluster.patch(kube.path("Deployment", "api"), {"metadata": {"managedFields": [{}]}})
    assert DENIED == refusals(plan(kube))


def test_the_label_alone_is_no_argo_cd(kube: Any) -> None:
    """Charts that people install by hand set it as well."""
    put(kube, "helm", (), deployment(INSTANCE, {}, 2))
    step = plan(kube)
    assert [] == refusals(step)
    assert "reconciled_by" not in step.before


@pytest.mark.parametrize("owned", [True, False])
def test_the_minimum_of_an_autoscaler_is_judged_the_same(kube: Any, owned: bool) -> None:
    """What counts there is who owns minReplicas, not who owns the workload's replicas."""
    put(kube, "kustomize-controller", SERVER_SIDE, deployment(KUSTOMIZATION, {}, 2))
    keeper: dict[str, Any] = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "api", "labels": KUSTOMIZATION},
        "spec": {"maxReplicas": 8, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}},
    }
    if owned:
        keeper["spec"]["minReplicas"] = 2
    put(kube, "kustomize-controller", SERVER_SIDE, keeper)
    step = plan(kube)
    assert (DENIED if owned else []) == refusals(step)
    if owned:
        assert "HorizontalPodAutoscaler" in step.conditions[0].message
        assert "spec.minReplicas" in step.conditions[0].message
