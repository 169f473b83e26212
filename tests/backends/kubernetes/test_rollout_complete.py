"""kubernetes.rollout_complete against a real control plane."""

from __future__ import annotations

from typing import Any

import pytest

from app.backends.checks import checks
from app.domain.errors import CheckError
from tests.support.processes import wait_until

CHECK = "kubernetes.rollout_complete"
KINDS = ("Deployment", "StatefulSet", "DaemonSet")


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_when_every_replica_is_new_and_available(kube: Any, kind: str) -> None:
    """A workload at rest holds, and the numbers are there for the audit."""
    seen = kube.observe(CHECK, kube.running(kind, "api", 2))
    assert seen.held, seen.message
    assert (2, 2, 2, 2) == tuple(seen.data[number] for number in ("desired", "updated", "ready", "available"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_hold_while_pods_become_ready(kube: Any, kind: str) -> None:
    """Pods of the newest template that are not ready are not a complete rollout."""
    kube.create(kind, "api", pods={"testbed/never-ready": "true"})
    kube.wait_status(kind, "api", _all_updated)
    seen = kube.observe(CHECK, kube.target(kind, "api"))
    assert not seen.held
    assert "replicas are available" in seen.message


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_hold_while_old_pods_remain(kube: Any, kind: str) -> None:
    """While old pods serve, ready as they are, the rollout is not complete."""
    kube.running(kind, "api", 2)
    kube.deploy_image(kind, "api", "example/main:2", **{"testbed/never-ready": "true"})
    kube.wait_status(kind, "api", lambda status: _updated(status) > 0)
    seen = kube.observe(CHECK, kube.target(kind, "api"))
    assert not seen.held
    assert "run the newest pod template" in seen.message


def test_it_does_not_hold_before_the_controller_has_looked(kube: Any) -> None:
    """Right after a change the status is still the old one, all green; it is not believed."""
    target = kube.running("Deployment", "api", pods={"testbed/ready-after": "2s"})
    kube.apply(target, kube.plan("kubernetes.rollout_restart", target))
    assert not kube.observe(CHECK, target).held


def test_a_rollout_beyond_its_deadline_does_not_hold_and_says_so(kube: Any) -> None:
    """A stalled rollout is told apart from one that needs more time."""
    kube.running("Deployment", "api", progressDeadlineSeconds=2)
    kube.deploy_image("Deployment", "api", "example/main:2", **{"testbed/never-ready": "true"})
    kube.wait_status("Deployment", "api", _has_stalled)
    seen = kube.observe(CHECK, kube.target("Deployment", "api"))
    assert (False, True) == (seen.held, "progress deadline" in seen.message)


def test_replicas_held_back_by_a_partition_are_complete(kube: Any) -> None:
    """A StatefulSet whose partition keeps some replicas on the old template is complete without them."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    kube.running("StatefulSet", "db", 2, updateStrategy=strategy)
    kube.deploy_image("StatefulSet", "db", "example/main:2")
    kube.wait_status("StatefulSet", "db", lambda status: status.get("updatedReplicas", 0) == 1)
    kube.wait_complete("StatefulSet", "db")
    seen = kube.observe(CHECK, kube.target("StatefulSet", "db"))
    assert seen.held, seen.message


def test_it_is_of_the_planned_number(kube: Any) -> None:
    """A minimum that its autoscaler has not acted upon is no rollout; nor is a workload without replicas."""
    target = kube.running("Deployment", "api", 1)
    kube.autoscaler("api", (1, 8))
    step = kube.plan("kubernetes.scale", target, by=2, max=8)
    seen = kube.observe(CHECK, target, [step])
    assert (False, True) == (seen.held, "its autoscaler was to raise it to 3" in seen.message)
    none = kube.running("Deployment", "web", 1)
    down = kube.plan("kubernetes.scale", none, to=0, min=0)
    kube.apply(none, down)
    wait_until(lambda: kube.observe(CHECK, none, [down]).held, 30, "the last replica to go")
    seen = kube.observe(CHECK, none)
    assert (False, True) == (seen.held, "has no replicas" in seen.message)


def test_a_missing_workload_does_not_hold(kube: Any) -> None:
    """What does not exist was observed: it is not rolled out."""
    seen = kube.observe(CHECK, kube.target("Deployment", "api"))
    assert (False, f"Deployment {kube.namespace}/api does not exist") == (seen.held, seen.message)


def test_what_may_not_be_read_is_not_observed(kube: Any) -> None:
    """A missing permission is an error of the look, not a verdict on the workload."""
    with pytest.raises(CheckError, match=r"not allowed to get deployments \(apps\)"):
        kube.as_account("nobody").observe(CHECK, kube.target("Deployment", "api"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_declared_permissions_are_enough(kube: Any, declared: Any, kind: str) -> None:
    """An account with exactly what the check declares can look."""
    target = kube.running(kind, "api")
    assert kube.as_account("viewer", *declared(checks()[CHECK].permissions)).observe(CHECK, target).held


def _updated(status: Any) -> int:
    return status.get("updatedReplicas", 0) or status.get("updatedNumberScheduled", 0)


def _all_updated(status: Any) -> bool:
    """A DaemonSet's pods come one node after the other; the other kinds are created with one replica."""
    return 0 < _updated(status) == status.get("desiredNumberScheduled", 1)


def _has_stalled(status: Any) -> bool:
    return any(one.get("reason") == "ProgressDeadlineExceeded" for one in status.get("conditions", ()))
