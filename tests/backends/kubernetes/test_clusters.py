"""Several clusters: a target names its own, by a label, and no other is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.backends.connections import Connections
from app.backends.kubernetes.backend import KubernetesConnection
from app.backends.scope import Scope
from app.domain.reasons import Reason
from app.domain.states import RunState
from tests.support.aio import run
from tests.support.engine import engine, remediation, sqlite


def test_an_alert_names_the_cluster_of_its_target(kube: Any, tmp_path: Path) -> None:
    """Its key has the cluster, the storm guard counts there, and a cluster out of scope or unknown is left alone."""
    for name in ("api", "db", "web"):
        kube.running("Deployment", name)
    target = {"kind": "Deployment", "namespace": kube.namespace, "name": "api", "cluster": "{{ labels.cluster }}"}
    entry = remediation(target={"kubernetes": target}, steps=[{"action": "kubernetes.rollout_restart"}])
    nowhere = KubernetesConnection(kubeconfig=tmp_path / "nowhere")
    clusters = {"default": nowhere, "eu": KubernetesConnection(kubeconfig=kube.kubeconfig), "us": nowhere}
    scope = Scope(kubernetes={"namespaces": ("*", f"eu/{kube.namespace}")})

    async def scenario() -> None:
        connections = Connections(kubernetes=clusters)
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections, scope=scope) as one:
            await one.fire(cluster="eu")
            (row,) = await one.reached(RunState.DEFERRED, RunState.SUCCEEDED, seconds=30)
            key = f"kubernetes:eu/Deployment/{kube.namespace}/api"
            assert (RunState.SUCCEEDED, key) == (row.state, row.target_key), row.message
            assert "eu" == row.plan["target"]["at"]
            await one.fire(cluster="us")
            rows = await one.ended(count=2)
            (refused,) = [other for other in rows if other.id != row.id]
            assert (RunState.DENIED, Reason.OUT_OF_SCOPE) == (refused.state, refused.reason)
            assert f"us/{kube.namespace}" in refused.message

    run(scenario())
    template = kube.cluster.get(kube.path("Deployment", "api"))["spec"]["template"]
    assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]
