"""The Kubernetes control plane of the test bed does what remediations rely on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.client import ApiException, CoreV1Api
from kubernetes.config import new_client_from_config

from tests.support.cluster import Cluster
from tests.support.processes import wait_until


def test_a_deployment_becomes_ready(cluster: Cluster, namespace: str) -> None:
    """Three replicas are scheduled, simulated and reported available."""
    deployment = cluster.deployment(namespace, "web", replicas=3)
    assert deployment["status"]["readyReplicas"] == 3


def test_a_rollout_restart_replaces_every_pod(cluster: Cluster, namespace: str) -> None:
    """Changing the pod template's annotation rolls the Deployment to completion."""
    cluster.deployment(namespace, "web", replicas=3)
    before = _pod_names(cluster, namespace)
    annotations = {"kubectl.kubernetes.io/restartedAt": datetime.now(UTC).isoformat()}
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    cluster.patch(f"/apis/apps/v1/namespaces/{namespace}/deployments/web", patch)
    cluster.wait_rolled_out(namespace, "web")
    wait_until(lambda: len(_pod_names(cluster, namespace)) == 3, 30, "the old pods to be gone")
    assert before.isdisjoint(_pod_names(cluster, namespace))


def test_a_stateful_set_rolls_one_pod_at_a_time_to_ready(cluster: Cluster, namespace: str) -> None:
    """A StatefulSet applied as YAML reaches its replicas."""
    cluster.apply(
        f"""
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: {namespace}}}
spec:
  replicas: 2
  serviceName: db
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec: {{containers: [{{name: main, image: "example/db:1"}}]}}
"""
    )
    path = f"/apis/apps/v1/namespaces/{namespace}/statefulsets/db"
    wait_until(lambda: cluster.get(path)["status"].get("readyReplicas") == 2, 30, "both pods to be ready")
    assert _pod_names(cluster, namespace) == {"db-0", "db-1"}


@pytest.mark.parametrize(
    ("annotation", "waiting"), [("testbed/never-ready", None), ("testbed/crash-looping", "CrashLoopBackOff")]
)
def test_an_annotation_keeps_pods_from_becoming_ready(
    cluster: Cluster, namespace: str, annotation: str, waiting: str | None
) -> None:
    """What a test needs for a rollout that gets stuck."""
    cluster.create_deployment(namespace, "web", annotations={annotation: "true"})
    wait_until(lambda: _states(cluster, namespace), 30, "the pod to have a container status")
    (state,) = _states(cluster, namespace)
    assert (state["ready"], state["state"].get("waiting", {}).get("reason")) == (False, waiting)


def test_a_service_account_without_a_role_is_refused(cluster: Cluster, namespace: str) -> None:
    """RBAC is on: who was granted nothing may not even read."""
    kubeconfig = cluster.service_account_kubeconfig(namespace, "nobody")
    with new_client_from_config(str(kubeconfig)) as client, pytest.raises(ApiException) as refusal:
        CoreV1Api(client).list_namespaced_pod(namespace)
    assert refusal.value.status == 403


def test_a_granted_service_account_may_do_just_that(cluster: Cluster, namespace: str) -> None:
    """A role opens one verb on one resource, and no other."""
    kubeconfig = cluster.service_account_kubeconfig(namespace, "reader")
    cluster.grant(namespace, "reader", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])
    with new_client_from_config(str(kubeconfig)) as client:
        assert CoreV1Api(client).list_namespaced_pod(namespace).items == []
        with pytest.raises(ApiException) as refusal:
            CoreV1Api(client).list_namespaced_service(namespace)
    assert refusal.value.status == 403


def test_anonymous_requests_are_refused(cluster: Cluster) -> None:
    """Nobody reads the cluster without a token."""
    with cluster.client("wrong") as client:
        assert client.get("/api/v1/namespaces").status_code == 401


def _pod_names(cluster: Cluster, namespace: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]}


def _states(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    pods = cluster.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return [state for pod in pods for state in pod["status"].get("containerStatuses", ())]
