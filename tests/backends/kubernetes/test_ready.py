"""kubernetes.ready against a real control plane."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.backends.checks import checks
from app.domain.errors import CheckError
from tests.support.cluster import workload

CHECK = "kubernetes.ready"
KINDS = ("Deployment", "StatefulSet", "DaemonSet")


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_when_all_replicas_are_ready(kube: Any, kind: str) -> None:
    """Without a parameter every desired replica must be ready."""
    seen = kube.observe(CHECK, kube.running(kind, "api", 2))
    assert (True, 2, 2, 2) == (seen.held, seen.data["desired"], seen.data["ready"], seen.data["needed"])


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_hold_while_one_is_missing(kube: Any, kind: str) -> None:
    """Pods that exist and are not ready do not count."""
    kube.create(kind, "api", pods={"testbed/crash-looping": "true"})
    kube.wait_status(kind, "api", lambda status: len(status) > 1)
    seen = kube.observe(CHECK, kube.target(kind, "api"))
    assert not seen.held
    assert "0 ready replicas" in seen.message


@pytest.mark.parametrize(
    ("desired", "min_ready", "held"),
    [
        (4, 2, True),
        (4, 3, False),
        (4, "50%", True),
        (4, "51%", False),
        (4, "0%", True),
        (4, 0, True),
        (3, "67%", False),
        (3, "66%", True),
    ],
)
def test_enough_may_be_a_number_or_a_percentage(kube: Any, desired: int, min_ready: int | str, held: bool) -> None:
    """With two ready replicas, a percentage of the desired ones is rounded up."""
    # On two nodes, pods that shun each other are ready on both, and the others wait for a third.
    template = workload("api", desired, {})["spec"]["template"]
    apart = {"labelSelector": {"matchLabels": {"app": "api"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    kube.create("Deployment", "api", desired, template=template | {"spec": template["spec"] | {"affinity": affinity}})
    kube.wait_status("Deployment", "api", lambda status: status.get("readyReplicas") == 2)
    seen = kube.observe(CHECK, kube.target("Deployment", "api"), min_ready=min_ready)
    assert held == seen.held, seen.message


@pytest.mark.parametrize(("params", "held"), [({}, False), ({"min_ready": "1%"}, False), ({"min_ready": 0}, True)])
def test_nothing_is_not_ready_unless_nothing_is_asked_for(kube: Any, params: dict[str, Any], held: bool) -> None:
    """A workload at zero replicas is not healthy by being empty."""
    target = kube.running("Deployment", "api", 0)
    assert held == kube.observe(CHECK, target, **params).held


@pytest.mark.parametrize("min_ready", [-1, "101%", "-5%", "five", "5 %", "05%"])
def test_a_number_that_is_none_is_refused(min_ready: Any) -> None:
    """What is neither a number nor a percentage is found when the catalog is loaded."""
    with pytest.raises(ValidationError):
        checks()[CHECK].Params(min_ready=min_ready)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_after_a_restart_old_pods_do_not_count(kube: Any, kind: str) -> None:
    """New pods that never become ready leave the old ones, which are; without a restart of the run's own they count."""
    target = kube.running(kind, "api", 2)
    step = kube.plan("kubernetes.rollout_restart", target)
    kube.deploy_image(kind, "api", "example/main:2", **{"testbed/never-ready": "true"})
    kube.wait_status(kind, "api", lambda status: status.get("updatedReplicas") == 1)
    seen = kube.observe(CHECK, target, [step], min_ready="50%")
    assert (False, True) == (seen.held, "has 0 new and ready replicas of 2" in seen.message), seen.message
    assert kube.observe(CHECK, target, min_ready="50%").held


def test_after_a_restart_new_pods_count(kube: Any) -> None:
    """Once all of them are new it holds."""
    target = kube.running("Deployment", "api", 2)
    step = kube.plan("kubernetes.rollout_restart", target)
    kube.apply(target, step)
    kube.wait_complete("Deployment", "api")
    assert kube.observe(CHECK, target, [step]).held


def test_a_missing_workload_does_not_hold(kube: Any) -> None:
    """What does not exist was observed: it is not ready."""
    seen = kube.observe(CHECK, kube.target("StatefulSet", "db"))
    assert (False, f"StatefulSet {kube.namespace}/db does not exist") == (seen.held, seen.message)


def test_what_may_not_be_read_is_not_observed(kube: Any) -> None:
    """A missing permission is an error of the look, not a verdict on the workload."""
    with pytest.raises(CheckError, match=r"not allowed to get daemonsets \(apps\)"):
        kube.as_account("nobody").observe(CHECK, kube.target("DaemonSet", "api"))
