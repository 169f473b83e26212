"""kubernetes.scale against a real control plane, with and without autoscalers."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from app.backends.actions import actions
from app.backends.kubernetes.autoscalers import autoscalers_of
from app.backends.kubernetes.objects import ObjectRef
from app.domain.errors import PermanentError
from app.domain.reasons import Reason
from tests.support.cluster import workload
from tests.support.processes import wait_until

ACTION = "kubernetes.scale"
KINDS = ("Deployment", "StatefulSet")


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_to_a_number_is_done(kube: Any, kind: str) -> None:
    """The workload gets the number, and nothing else of it changes."""
    target = kube.running(kind, "api", 1)
    before = kube.get(kind, "api")["spec"]
    result = kube.apply(target, kube.plan(ACTION, target, to=3))
    assert (True, 3) == (result["written"], result["replicas"])
    found = kube.get(kind, "api")
    assert before | {"replicas": 3} == found["spec"]
    assert "remediator" in {entry["manager"] for entry in found["metadata"]["managedFields"]}


@pytest.mark.parametrize("kind", KINDS)
def test_planning_changes_nothing_and_says_what_there_is(kube: Any, kind: str) -> None:
    """A plan only reads, and names the number to reach."""
    target = kube.running(kind, "api", 2)
    spec = kube.get(kind, "api")["spec"]
    step = kube.plan(ACTION, target, by=2, max=10)
    found = kube.get(kind, "api")
    assert spec == found["spec"]
    assert "remediator" not in {entry["manager"] for entry in found["metadata"]["managedFields"]}
    assert (2, {"replicas": 4}, True, ()) == (step.before["replicas"], step.desired, step.changes, step.conditions)
    assert f"scale {kind} {kube.namespace}/api from 2 to 4 replicas" == step.summary


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"by": 2, "max": 10}, 5),
        ({"by": 9, "max": 5}, 5),
        ({"by": -1}, 2),
        ({"by": -9}, 1),
        ({"by": -9, "min": 2}, 2),
        ({"by": -3, "min": 0}, 0),
        ({"by": -1, "max": 1}, 2),
        ({"to": 0, "min": 0}, 0),
        ({"to": 100}, 100),
    ],
)
def test_the_number_to_reach_is_within_the_bounds(kube: Any, params: dict[str, int], expected: int) -> None:
    """From three replicas, each of these leads where its author expects."""
    kube.create("Deployment", "api", 3)
    assert expected == kube.plan(ACTION, kube.target("Deployment", "api"), **params).desired["replicas"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"by": 1, "max": 3}, "is at 3 and the maximum is 3"),
        ({"by": 1, "max": 2}, "is at 3 and the maximum is 2"),
        ({"by": -1, "min": 3}, "is at 3 and the minimum is 3"),
        ({"by": -1, "min": 5}, "is at 3 and the minimum is 5"),
    ],
)
def test_a_workload_at_its_bound_stays(kube: Any, params: dict[str, int], message: str) -> None:
    """At or beyond the bound there is nothing to do, and never a step in the other direction."""
    kube.create("Deployment", "api", 3)
    _assert_fails(Reason.BOUNDS_REACHED, message, kube.plan, ACTION, kube.target("Deployment", "api"), **params)


def test_a_number_that_is_there_already_changes_nothing(kube: Any) -> None:
    """An absolute number that is reached already is a plan without a change."""
    kube.create("Deployment", "api", 3)
    assert not kube.plan(ACTION, kube.target("Deployment", "api"), to=3).changes


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "exactly one of to and by"),
        ({"to": 1, "by": 1, "max": 2}, "exactly one of to and by"),
        ({"by": 0, "max": 2}, "by must not be 0"),
        ({"by": 1}, "max is required"),
        ({"by": 1, "min": 5, "max": 4}, "min must not be more than max"),
        ({"to": 0}, "to must not be less than min"),
        ({"to": 11, "max": 10}, "to must not be more than max"),
        ({"to": 101}, "to must not be more than max"),
        ({"to": -1, "min": 0}, "greater than or equal to 0"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(params: dict[str, int], message: str) -> None:
    """A mistake is found when the catalog is loaded, and said in words."""
    with pytest.raises(ValidationError, match=message):
        actions()[ACTION].Params(**params)


@pytest.mark.parametrize("kind", KINDS)
def test_applying_again_writes_nothing(kube: Any, kind: str) -> None:
    """A relative step that is applied twice adds once."""
    kube.create(kind, "api", 1)
    target = kube.target(kind, "api")
    step = kube.plan(ACTION, target, by=2, max=10)
    kube.apply(target, step)
    assert not kube.apply(target, step)["written"]
    assert 3 == kube.get(kind, "api")["spec"]["replicas"]


def test_a_number_changed_since_the_plan_is_left_alone(kube: Any) -> None:
    """Somebody's other number is not overwritten."""
    kube.create("Deployment", "api", 1)
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=3)
    kube.patch("Deployment", "api", replicas=7)
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "has replicas 7", kube.apply, target, step)
    assert 7 == kube.get("Deployment", "api")["spec"]["replicas"]


def test_a_workload_made_anew_is_another_one(kube: Any) -> None:
    """The same name and number with another uid is not what was planned for."""
    kube.create("StatefulSet", "api", 1)
    target = kube.target("StatefulSet", "api")
    step = kube.plan(ACTION, target, to=3)
    kube.cluster.delete(kube.path("StatefulSet", "api"))
    kube.create("StatefulSet", "api", 1)
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "made anew", kube.apply, target, step)


def test_a_missing_workload_is_not_found(kube: Any) -> None:
    """Planning for what does not exist says so."""
    target = kube.target("Deployment", "api")
    _assert_fails(Reason.TARGET_NOT_FOUND, "does not exist", kube.plan, ACTION, target, to=3)


def test_a_daemon_set_cannot_be_scaled(kube: Any) -> None:
    """It has one pod per node, whatever anybody asks for."""
    kube.create("DaemonSet", "api")
    _assert_fails(Reason.ACTION_FAILED, "cannot be scaled", kube.plan, ACTION, kube.target("DaemonSet", "api"), to=3)


def test_missing_permissions_are_named(kube: Any) -> None:
    """Reading, listing autoscalers and scaling each name what is missing."""
    kube.create("Deployment", "api")
    target = kube.target("Deployment", "api")
    get = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}
    lists = {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]}
    nobody, reader, planner = kube.as_account("a"), kube.as_account("b", get), kube.as_account("c", get, lists)
    _assert_fails(Reason.FORBIDDEN, "to get deployments (apps) in", nobody.plan, ACTION, target, to=3)
    expected = "to list horizontalpodautoscalers (autoscaling) in"
    _assert_fails(Reason.FORBIDDEN, expected, reader.plan, ACTION, target, to=3)
    step = planner.plan(ACTION, target, to=3)
    _assert_fails(Reason.FORBIDDEN, "to patch deployments/scale (apps) in", planner.apply, target, step)


@pytest.mark.parametrize("kind", KINDS)
def test_the_declared_permissions_are_enough(kube: Any, declared: Any, kind: str) -> None:
    """An account with exactly what the action declares can plan, apply and undo, on both ways."""
    kube.create(kind, "api", 2)
    kube.create("Deployment", "kept", 2)
    kube.autoscaler("kept", (1, 5), workload="kept")
    account = kube.as_account("remediator", *declared(actions()[ACTION].permissions))
    for target in (kube.target(kind, "api"), kube.target("Deployment", "kept")):
        step = account.plan(ACTION, target, by=1, max=5)
        assert account.apply(target, step)["written"]
        assert account.undo(target, step)["written"]


def test_a_rollout_under_way_defers(kube: Any) -> None:
    """While old pods wait for new ones, the condition holds and passes by itself."""
    kube.running("Deployment", "api", 2)
    kube.deploy_image("Deployment", "api", "example/main:2", **{"testbed/never-ready": "true"})
    kube.wait_status("Deployment", "api", lambda status: 0 < status.get("updatedReplicas", 0) < 2)
    step = kube.plan(ACTION, kube.target("Deployment", "api"), to=3)
    assert [(Reason.ROLLOUT_IN_PROGRESS, True)] == [(one.reason, one.passes) for one in step.conditions]


def test_undoing_returns_to_the_number_before(kube: Any) -> None:
    """Undo goes back, and once back, undoing again writes nothing."""
    kube.create("Deployment", "api", 2)
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=5)
    kube.apply(target, step)
    assert kube.undo(target, step)["written"]
    assert not kube.undo(target, step)["written"]
    assert 2 == kube.get("Deployment", "api")["spec"]["replicas"]


def test_undoing_leaves_somebody_elses_number_alone(kube: Any) -> None:
    """What was changed after the step is not taken back."""
    kube.create("Deployment", "api", 2)
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=5)
    kube.apply(target, step)
    kube.patch("Deployment", "api", replicas=6)
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "has replicas 6", kube.undo, target, step)


def test_undoing_leaves_the_same_number_alone_where_somebody_has_set_it(kube: Any) -> None:
    """The API server notes whose number it is; a person who went elsewhere and came back means it."""
    kube.create("Deployment", "api", 2)
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=5)
    kube.apply(target, step)
    for number in (6, 5):
        kube.kubectl_scale("deployment", "api", number)
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "has replicas 5 by kubectl", kube.undo, target, step)
    assert 5 == kube.get("Deployment", "api")["spec"]["replicas"]


def test_undoing_leaves_a_number_alone_that_somebody_applies(kube: Any) -> None:
    """Who applies the same number on the server's side owns it as well."""
    kube.create("Deployment", "api", 2)
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=5)
    kube.apply(target, step)
    wanted = {"apiVersion": "apps/v1", "kind": "Deployment"} | workload("api", 5, {})
    words = ("apply", "--server-side", "--force-conflicts", "--namespace", kube.namespace, "-f", "-")
    kube.cluster.kubectl(*words, stdin=yaml.safe_dump(wanted))
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "has replicas 5 by kubectl", kube.undo, target, step)


def test_undoing_leaves_a_minimum_alone_where_somebody_has_set_it(kube: Any) -> None:
    """The same for the minimum of an autoscaler."""
    kube.create("Deployment", "api", 4)
    kube.autoscaler("api", (3, 8))
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=5)
    kube.apply(target, step)
    for minimum in (6, 5):
        patch = f'{{"spec":{{"minReplicas":{minimum}}}}}'
        kube.cluster.kubectl("patch", "hpa/api", "--namespace", kube.namespace, "--type=merge", "-p", patch)
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "has minReplicas 5 by kubectl", kube.undo, target, step)
    assert 5 == kube.minimum("api")


def test_a_number_that_an_operator_keeps_is_refused(kube: Any) -> None:
    """The object that controls the workload is named, and its number is to be changed there; a restart is allowed."""
    kube.controlled("StatefulSet", "db")
    kube.wait_complete("StatefulSet", "db")
    target = kube.target("StatefulSet", "db")
    step = kube.plan(ACTION, target, to=3)
    assert (Reason.OWNED_BY_OPERATOR, False) == (step.conditions[0].reason, step.conditions[0].passes)
    assert "controlled by ConfigMap main (v1)" in step.conditions[0].message
    assert () == kube.plan("kubernetes.rollout_restart", target).conditions


def test_an_autoscaler_that_cannot_act_is_refused(kube: Any) -> None:
    """Its condition AbleToScale says so; a raised minimum would stay a promise."""
    kube.create("Deployment", "api", 2)
    kube.autoscaler("api", (1, 8))
    target = kube.target("Deployment", "api")

    def is_refused() -> bool:
        kube.unable("api")  # until its controller, which is well, looks again
        step = kube.plan(ACTION, target, by=2, max=8)
        refused = [one for one in step.conditions if one.reason is Reason.OWNED_BY_HPA]
        return bool(refused) and not refused[0].passes and "FailedGetScale: no matches" in refused[0].message

    wait_until(is_refused, 30, "a plan that sees the autoscaler's condition")


def test_what_keeps_an_autoscaler_from_acting(kube: Any) -> None:
    """Older API servers take one without an API version; one without metrics still keeps its minimum."""
    kube.autoscaler("api", (1, 8))
    path = f"/apis/autoscaling/v2/namespaces/{kube.namespace}/horizontalpodautoscalers/api"
    raw = kube.cluster.get(path)
    ref = ObjectRef("Deployment", kube.namespace, "api")
    raw["status"] = {"conditions": [{"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric"}]}
    assert [""] == [one.unable for one in autoscalers_of(ref, [raw])]
    del raw["spec"]["scaleTargetRef"]["apiVersion"]
    assert ["its scaleTargetRef has no apiVersion"] == [one.unable for one in autoscalers_of(ref, [raw])]


def test_an_autoscaler_of_an_operator_is_refused(kube: Any) -> None:
    """A minimum that another object's operator writes would be written back."""
    kube.create("Deployment", "api", 2)
    owner = kube.cluster.create(f"/api/v1/namespaces/{kube.namespace}/configmaps", {"metadata": {"name": "main"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "main", "uid": owner["metadata"]["uid"]}
    kube.autoscaler("api", (1, 8), owner=reference | {"controller": True})
    step = kube.plan(ACTION, kube.target("Deployment", "api"), by=2, max=8)
    assert (Reason.OWNED_BY_OPERATOR, False) == (step.conditions[0].reason, step.conditions[0].passes)


@pytest.mark.parametrize(
    ("start", "goal", "now", "gone"),
    [
        (2, 5, 5, False),
        (2, 5, 6, False),
        (2, 5, 4, True),
        (2, 5, 2, True),
        (5, 2, 2, False),
        (5, 2, 1, False),
        (5, 2, 3, True),
    ],
)
def test_a_number_that_came_back_is_seen(kube: Any, start: int, goal: int, now: int, gone: bool) -> None:
    """On the way back it is taken back, by name; farther on it is somebody's further step."""
    kube.create("Deployment", "api", start)
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=goal)
    kube.apply(target, step)
    assert "" == kube.taken_back(target, step)
    kube.kubectl_scale("deployment", "api", now)
    assert gone == ("changed back by kubectl" in kube.taken_back(target, step))


def test_a_return_that_was_taken_back_is_seen(kube: Any) -> None:
    """After an undo it is the number before that must stay."""
    kube.create("Deployment", "api", 2)
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=5)
    kube.apply(target, step)
    kube.undo(target, step)
    assert "" == kube.taken_back(target, step, undone=True)
    kube.kubectl_scale("deployment", "api", 4)
    assert "changed back by kubectl" in kube.taken_back(target, step, undone=True)


def test_under_an_autoscaler_its_minimum_is_raised(kube: Any) -> None:
    """Two more than now are a minimum of two more than now; the replicas are the autoscaler's business."""
    kube.create("Deployment", "api", 4)
    kube.autoscaler("api-hpa", (2, 10))
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, by=2, max=8)
    result = kube.apply(target, step)
    assert {"hpa": "api-hpa", "min_replicas": 6} == step.desired
    assert (2, 10) == (step.before["hpa"]["min_replicas"], step.before["hpa"]["max_replicas"])
    assert (True, 6, 6) == (result["written"], result["minReplicas"], kube.minimum("api-hpa"))
    assert not kube.apply(target, step)["written"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"to": 5}, 5),
        ({"to": 1}, 1),
        ({"by": 9, "max": 20}, 8),
        ({"by": 9, "max": 6}, 6),
        ({"by": -1}, 2),
        ({"by": -9}, 1),
        ({"by": -9, "min": 0}, 1),
    ],
)
def test_the_minimum_to_reach_is_within_all_bounds(kube: Any, params: dict[str, int], expected: int) -> None:
    """With four replicas and an autoscaler from three to eight, both its bounds and the author's hold."""
    kube.create("Deployment", "api", 4)
    kube.autoscaler("api", (3, 8))
    assert expected == kube.plan(ACTION, kube.target("Deployment", "api"), **params).desired["min_replicas"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"to": 9}, "cannot have 9 replicas: the bounds are 1 to 8"),
        ({"to": 0, "min": 0}, "cannot have 0 replicas: the bounds are 1 to 8"),
        ({"by": 1, "max": 4}, "is at 4 and the maximum is 4"),
        ({"by": -1, "min": 3}, "is at 3 and the minimum is 3"),
    ],
)
def test_an_autoscalers_bounds_are_kept(kube: Any, params: dict[str, int], message: str) -> None:
    """Beyond the maximum of the autoscaler, or of the author, nothing is planned."""
    kube.create("Deployment", "api", 4)
    kube.autoscaler("api", (3, 8))
    _assert_fails(Reason.BOUNDS_REACHED, message, kube.plan, ACTION, kube.target("Deployment", "api"), **params)


def test_a_minimum_that_is_there_already_changes_nothing(kube: Any) -> None:
    """An absolute number equal to the minimum is a plan without a change."""
    kube.create("Deployment", "api", 4)
    kube.autoscaler("api", (3, 8))
    assert not kube.plan(ACTION, kube.target("Deployment", "api"), to=3).changes


def test_undoing_returns_to_the_minimum_before(kube: Any) -> None:
    """Undo gives the autoscaler its minimum back, unless somebody changed it."""
    kube.create("Deployment", "api", 4)
    kube.autoscaler("api", (3, 8))
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, to=5)
    kube.apply(target, step)
    assert (True, 3) == (kube.undo(target, step)["written"], kube.minimum("api"))
    path = f"/apis/autoscaling/v2/namespaces/{kube.namespace}/horizontalpodautoscalers/api"
    kube.cluster.patch(path, {"spec": {"minReplicas": 4}})
    _assert_fails(Reason.CHANGED_SINCE_PLANNED, "has minReplicas 4", kube.undo, target, step)


def test_another_workloads_autoscaler_does_not_matter(kube: Any) -> None:
    """Only an autoscaler whose target this is counts."""
    kube.create("StatefulSet", "api", 1)
    kube.create("Deployment", "web", 1)
    kube.autoscaler("web", (1, 8), workload="web")
    kube.autoscaler("api", (1, 8))  # of a Deployment, while the target is a StatefulSet
    assert {"replicas": 3} == kube.plan(ACTION, kube.target("StatefulSet", "api"), to=3).desired


def test_a_workload_at_zero_is_scaled_itself(kube: Any) -> None:
    """An autoscaler does nothing at zero replicas, so raising its minimum would not start anything."""
    kube.create("Deployment", "api", 0)
    kube.autoscaler("api", (2, 8))
    assert {"replicas": 2} == kube.plan(ACTION, kube.target("Deployment", "api"), to=2).desired


def test_a_keda_autoscaler_is_refused(kube: Any) -> None:
    """KEDA would set its autoscaler back, so waiting does not help, and applying is refused as well."""
    kube.create("Deployment", "api", 2)
    scaled_object = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "api-queue", "uid": "1"}
    kube.autoscaler("keda-hpa-api", (1, 8), owner=scaled_object)
    target = kube.target("Deployment", "api")
    step = kube.plan(ACTION, target, by=1, max=5)
    assert [(Reason.OWNED_BY_KEDA, False)] == [(one.reason, one.passes) for one in step.conditions]
    _assert_fails(Reason.OWNED_BY_KEDA, "ScaledObject api-queue", kube.apply, target, step)


def test_two_autoscalers_of_one_workload_are_refused(kube: Any) -> None:
    """Which of them to turn cannot be told."""
    kube.create("Deployment", "api", 2)
    kube.autoscaler("one", (1, 8))
    kube.autoscaler("two", (1, 8))
    step = kube.plan(ACTION, kube.target("Deployment", "api"), by=1, max=5)
    assert [(Reason.OWNED_BY_HPA, False)] == [(one.reason, one.passes) for one in step.conditions]


def _assert_fails(reason: Reason, message: str, call: Any, *arguments: Any, **params: Any) -> None:
    with pytest.raises(PermanentError) as caught:
        call(*arguments, **params)
    assert reason is caught.value.reason
    assert message in caught.value.message
