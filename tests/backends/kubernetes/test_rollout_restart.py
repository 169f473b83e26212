"""kubernetes.rollout_restart against a real control plane."""

from __future__ import annotations

from typing import Any

import pytest

from app.backends.actions import actions
from app.domain.errors import PermanentError
from app.domain.reasons import Reason

ACTION = "kubernetes.rollout_restart"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
PLANNED_AT = "2026-03-01T12:00:00.123456+00:00"
KINDS = ("Deployment", "StatefulSet", "DaemonSet")


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_replaces_every_pod(kube: Any, kind: str) -> None:
    """The template gets the planned time, and the controller then replaces all pods."""
    target = kube.running(kind, "api", 2)
    before = {pod["metadata"]["uid"] for pod in kube.pods("api")}
    result = kube.apply(target, kube.plan(ACTION, target))
    kube.wait_complete(kind, "api")
    live = {pod["metadata"]["uid"] for pod in kube.pods("api") if "deletionTimestamp" not in pod["metadata"]}
    assert (True, PLANNED_AT) == (result["written"], result["restarted_at"])
    assert set() == before & live


@pytest.mark.parametrize("kind", KINDS)
def test_planning_changes_nothing_and_says_what_there_is(kube: Any, kind: str) -> None:
    """A plan only reads: the object stays as it is, and the state before is complete."""
    target = kube.running(kind, "api", 2)
    spec = kube.get(kind, "api")["spec"]
    step = kube.plan(ACTION, target)
    found = kube.get(kind, "api")
    assert spec == found["spec"]
    assert "remediator" not in {entry["manager"] for entry in found["metadata"]["managedFields"]}
    assert {"restarted_at": PLANNED_AT} == step.desired
    assert (2, 2, 2, "", ["example/main:1"]) == tuple(
        step.before[fact] for fact in ("replicas", "ready", "updated", "restarted_at", "images")
    )
    assert step.before["revision"]
    assert f"restart {kind} {kube.namespace}/api (2 replicas)" == step.summary
    assert () == step.conditions


@pytest.mark.parametrize("kind", KINDS)
def test_applying_again_writes_nothing(kube: Any, kind: str) -> None:
    """A plan that is applied twice, as after a crash, restarts once."""
    kube.create(kind, "api")
    target = kube.target(kind, "api")
    step = kube.plan(ACTION, target)
    kube.apply(target, step)
    generation = kube.get(kind, "api")["metadata"]["generation"]
    assert not kube.apply(target, step)["written"]
    assert generation == kube.get(kind, "api")["metadata"]["generation"]


def test_only_kubectls_own_annotation_is_written(kube: Any) -> None:
    """The restart leaves one annotation in the pod template and none on the workload."""
    kube.create("Deployment", "api", pods={"team": "shop"})
    target = kube.target("Deployment", "api")
    kube.apply(target, kube.plan(ACTION, target))
    found = kube.get("Deployment", "api")
    assert {"team": "shop", RESTARTED_AT: PLANNED_AT} == found["spec"]["template"]["metadata"]["annotations"]
    assert set(found["metadata"].get("annotations", {})) <= {"deployment.kubernetes.io/revision"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_workload_is_not_found(kube: Any, kind: str) -> None:
    """Planning for what does not exist says so."""
    _assert_fails(Reason.TARGET_NOT_FOUND, "does not exist", kube.plan, ACTION, kube.target(kind, "api"))


def test_a_workload_that_is_gone_by_now_is_not_found(kube: Any) -> None:
    """Deleted between plan and apply is not found, and nothing is made."""
    kube.create("Deployment", "api")
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target)
    kube.cluster.delete(kube.path("Deployment", "api"))
    _assert_fails(Reason.TARGET_NOT_FOUND, "does not exist", kube.apply, target, step)


def test_reading_without_permission_names_it(kube: Any) -> None:
    """An account without rights is told which one it lacks."""
    account = kube.as_account("nobody")
    message = f"not allowed to get deployments (apps) in namespace {kube.namespace}"
    _assert_fails(Reason.FORBIDDEN, message, account.plan, ACTION, kube.target("Deployment", "api"))


def test_writing_without_permission_names_it(kube: Any) -> None:
    """An account that may only read can plan, and is told what it lacks when it applies."""
    kube.create("Deployment", "api")
    reader = kube.as_account("reader", {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]})
    target = kube.target("Deployment", "api")
    step = reader.plan(ACTION, target)
    message = f"not allowed to patch deployments (apps) in namespace {kube.namespace}"
    _assert_fails(Reason.FORBIDDEN, message, reader.apply, target, step)


@pytest.mark.parametrize("kind", KINDS)
def test_the_declared_permissions_are_enough(kube: Any, declared: Any, kind: str) -> None:
    """An account with exactly what the action declares can plan and apply."""
    kube.create(kind, "api")
    account = kube.as_account("remediator", *declared(actions()[ACTION].permissions))
    target = kube.target(kind, "api")
    assert account.apply(target, account.plan(ACTION, target))["written"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deployment_since_the_plan_is_not_overwritten(kube: Any, kind: str) -> None:
    """Somebody's new image is a restart of its own; ours stops."""
    kube.create(kind, "api")
    target = kube.target(kind, "api")
    step = kube.plan(ACTION, target)
    kube.deploy_image(kind, "api", "example/main:2")
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "the pod template", kube.apply, target, step)


def test_somebody_elses_restart_since_the_plan_is_enough(kube: Any) -> None:
    """A restart by a person in between is not followed by a second one."""
    kube.create("Deployment", "api")
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target)
    kube.cluster.kubectl("rollout", "restart", "deployment/api", "--namespace", kube.namespace)
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "the pod template", kube.apply, target, step)


def test_a_workload_made_anew_is_another_one(kube: Any) -> None:
    """The same name with another uid is not what was planned for."""
    kube.create("DaemonSet", "api")
    target = kube.target("DaemonSet", "api")
    step = kube.plan(ACTION, target)
    kube.cluster.delete(kube.path("DaemonSet", "api"))
    kube.create("DaemonSet", "api")
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "made anew", kube.apply, target, step)


def test_scaling_since_the_plan_does_not_matter(kube: Any) -> None:
    """An autoscaler that works on between plan and apply does not stop a restart."""
    kube.create("Deployment", "api")
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target)
    kube.patch("Deployment", "api", replicas=4)
    assert kube.apply(target, step)["written"]
    assert 4 == kube.get("Deployment", "api")["spec"]["replicas"]


def test_a_paused_rollout_is_refused(kube: Any) -> None:
    """Waiting does not help against a pause, so the condition does not pass."""
    kube.running("Deployment", "api")
    kube.patch("Deployment", "api", paused=True)
    kube.wait_status("Deployment", "api", lambda status: status["observedGeneration"] > 0)
    step = kube.plan(ACTION, kube.target("Deployment", "api"))
    assert [(Reason.ROLLOUT_PAUSED, False)] == [(one.reason, one.passes) for one in step.conditions]


def test_a_rollout_paused_since_the_plan_stops_the_restart(kube: Any) -> None:
    """A restart is not left behind for whoever resumes the rollout."""
    kube.create("Deployment", "api")
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target)
    kube.patch("Deployment", "api", paused=True)
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "paused", kube.apply, target, step)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_under_way_defers(kube: Any, kind: str) -> None:
    """While old pods wait for new ones, the condition holds and passes by itself."""
    kube.running(kind, "api", 2)
    kube.deploy_image(kind, "api", "example/main:2", **{"testbed/never-ready": "true"})
    kube.wait_status(kind, "api", lambda status: bool(_updated(status)))
    step = kube.plan(ACTION, kube.target(kind, "api"))
    assert [(Reason.ROLLOUT_IN_PROGRESS, True)] == [(one.reason, one.passes) for one in step.conditions]


@pytest.mark.parametrize("kind", KINDS)
def test_crash_looping_pods_are_not_a_rollout(kube: Any, kind: str) -> None:
    """When every pod is of the newest template and none is ready, a restart is allowed."""
    kube.create(kind, "api", pods={"testbed/crash-looping": "true"})
    kube.wait_status(kind, "api", _has_updated_all)
    assert () == kube.plan(ACTION, kube.target(kind, "api")).conditions


def test_a_stalled_rollout_can_be_restarted(kube: Any) -> None:
    """A rollout beyond its progress deadline will not end by itself, so it does not defer."""
    kube.running("Deployment", "api", progressDeadlineSeconds=2)
    kube.deploy_image("Deployment", "api", "example/main:2", **{"testbed/never-ready": "true"})
    kube.wait_status("Deployment", "api", _has_stalled)
    assert () == kube.plan(ACTION, kube.target("Deployment", "api")).conditions


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_a_workload_that_waits_for_deletion_is_refused(kube: Any, kind: str) -> None:
    """With OnDelete a restart would replace no pod, so it fails instead of pretending."""
    kube.create(kind, "api", updateStrategy={"type": "OnDelete"})
    _assert_fails(Reason.ACTION_FAILED, "OnDelete", kube.plan, ACTION, kube.target(kind, "api"))


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_workload_without_replicas_is_refused(kube: Any, kind: str) -> None:
    """No pod would be replaced, and nothing would show that it was not; also when it was scaled down since the plan."""
    kube.running(kind, "api", 1)
    target = kube.target(kind, "api")
    step = kube.plan(ACTION, target)
    kube.patch(kind, "api", replicas=0)
    kube.wait_status(kind, "api", lambda status: not status.get("replicas"))
    _assert_fails(Reason.ACTION_FAILED, "has no replicas", kube.plan, ACTION, target)
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "scaled to no replicas", kube.apply, target, step)


def test_a_partition_that_holds_replicas_back_is_refused(kube: Any) -> None:
    """A restart would not reach the replicas below it, one of which may be the ill one."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    kube.running("StatefulSet", "api", 2, updateStrategy=strategy)
    target = kube.target("StatefulSet", "api")
    step = kube.plan(ACTION, target)
    assert [(Reason.ROLLOUT_PAUSED, False)] == [(one.reason, one.passes) for one in step.conditions]
    assert "holds 1 of 2 replicas back" in step.conditions[0].message
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "held back", kube.apply, target, step)


def _has_updated_all(status: Any) -> bool:
    # A StatefulSet makes its next pod when the one before is ready, so there one is all.
    return bool(_updated(status)) and _updated(status) == status.get("desiredNumberScheduled", _updated(status))


def _updated(status: Any) -> int:
    return status.get("updatedReplicas", 0) or status.get("updatedNumberScheduled", 0)


def _has_stalled(status: Any) -> bool:
    return any(one.get("reason") == "ProgressDeadlineExceeded" for one in status.get("conditions", ()))


def _assert_fails(reason: Reason, message: str, call: Any, *arguments: Any) -> None:
    with pytest.raises(PermanentError) as caught:
        call(*arguments)
    assert reason is caught.value.reason
    assert message in caught.value.message
