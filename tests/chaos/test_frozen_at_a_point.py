"""A replica that stands still at a chosen statement, and wakes when others have gone on without it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.conftest import PATIENCE, MakeReplicas, Replicas, fire, stands_still
from tests.support import web
from tests.support.alerts import alert, notification
from tests.support.cluster import Cluster
from tests.support.crashing import Point
from tests.support.engine import Clock, remediation
from tests.support.entries import asked, poke, request
from tests.support.processes import wait_until
from tests.support.service import Service

LEASE_SECONDS = 3.0
OTHERS_SEE = LEASE_SECONDS + 10
_JSON = {"Content-Type": "application/json"}
# From the commit of a step's intent to where its request leaves.
BEFORE_THE_CALL = (
    Point("app.engine.stages.execution.begin", "after", 1, "freeze"),
    Point("app.backends.http.actions.request.Request.apply", "before", 1, "freeze"),
    Point("app.backends.web._send_to", "before", 1, "freeze"),
)
BEFORE_THE_SCALING = (
    Point("app.engine.stages.execution.begin", "after", 1, "freeze"),
    Point("app.backends.kubernetes.actions.scale.Scale.apply", "before", 1, "freeze"),
    Point("app.backends.kubernetes.actions.scale._Dial.turn", "after", 1, "freeze"),  # between its look and its write
)


def frozen_owner(group: Replicas, point: Point, *pods: str) -> Service:
    """The first of two replicas, which takes the alert and stands still at the point."""
    first = group.start(module=point.module)
    assert 202 == fire(first, *pods)
    wait_until(lambda: stands_still(first), PATIENCE, f"the replica to {point}")
    group.start()
    return first


@pytest.mark.parametrize("point", BEFORE_THE_CALL, ids=str)
def test_a_call_is_not_made_after_its_run_was_ended(replicas: MakeReplicas, sink: web.WebServer, point: Point) -> None:
    """Another replica has ended the run, and a person has had it done: that was the one effect."""
    steps = [request(sink, method="POST", timeout="5m")]
    group = replicas(poke(sink, steps=steps), lease=f"{LEASE_SECONDS:g}s")
    first = frozen_owner(group, point)
    other = group.members[1]
    try:
        group.wait("interrupted", patience=OTHERS_SEE)
        ((run_id,),) = group.rows("id")
        assert 201 == other.post(f"/remediations/{run_id}/retry").status_code
        group.wait("interrupted", "succeeded", count=2)
    finally:
        first.thaw()
    wait_until(lambda: "the lease was lost" in first.logs, PATIENCE, "the frozen replica to see that it lost the run")
    assert ["interrupted", "succeeded"] == [state for (state,) in group.rows("state")]
    assert 1 == asked(sink)


def test_a_call_that_comes_late_is_made_where_nobody_has_gone_on(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """The only replica stood still for longer than its lease: it asks the store first, and then it goes on."""
    group = replicas(poke(sink, steps=[request(sink, method="POST")]), lease="2s")
    only = group.start(module=BEFORE_THE_CALL[0].module)
    fire(only)
    wait_until(lambda: stands_still(only), PATIENCE, "the replica to stand still")
    is_over = "lease_until < (extract(epoch from now()) * 1e6)::bigint"
    wait_until(lambda: group.rows(is_over) == [(True,)], PATIENCE, "its lease to be over")
    only.thaw()
    group.wait("succeeded")
    assert 1 == asked(sink)


@pytest.mark.parametrize("point", BEFORE_THE_SCALING, ids=str)
def test_a_scaling_does_not_follow_its_revert(
    replicas: MakeReplicas, cluster: Cluster, namespace: str, point: Point
) -> None:
    """It was done and given back by another replica meanwhile; done now, nobody would give it back again."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/shop"
    cluster.deployment(namespace, "shop", replicas=2)
    entry = remediation(
        name="more",
        target={"kubernetes": {"kind": "Deployment", "namespace": namespace, "name": "shop"}},
        steps=[{"action": "kubernetes.scale", "with": {"by": 3, "max": 8}, "timeout": "5m"}],
        revert="on_resolved",
        revert_after="1s",
    )
    connections = {"kubernetes": {"default": {"kubeconfig": str(cluster.kubeconfig)}}}
    scope = {"kubernetes": {"namespaces": [namespace]}}
    group = replicas(entry, lease=f"{LEASE_SECONDS:g}s", connections=connections, scope=scope, recheck="1s")
    first = frozen_owner(group, point)
    try:
        group.wait("succeeded", patience=OTHERS_SEE)
        assert 5 == cluster.get(path)["spec"]["replicas"]
        resolved = alert("resolved", starts_at=Clock()(), ends_at=Clock()(), pod="one")
        group.members[1].post("/webhooks/alertmanager", content=notification(resolved), headers=_JSON)
        group.wait("succeeded", count=2)
        before = cluster.get(path)
        assert 2 == before["spec"]["replicas"]
    finally:
        first.thaw()
    wait_until(lambda: "the lease was lost" in first.logs, PATIENCE, "the frozen replica to see that it lost the run")
    after: Any = cluster.get(path)
    assert (2, before["metadata"]["generation"]) == (after["spec"]["replicas"], after["metadata"]["generation"])
