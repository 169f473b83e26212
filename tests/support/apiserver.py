"""Brings up a real Kubernetes control plane on loopback: API server with RBAC, controllers, scheduler, and KWOK.

KWOK plays the kubelets: Deployments roll, ReplicaSets scale and pods become ready, but nothing runs in the pods. What
it does with a pod, and the annotations that change it, is in tools/testbed/kwok/stages.yaml.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.support.binaries import find
from tests.support.cluster import Cluster
from tests.support.processes import Process, answers, free_port, wait_until
from tools.install import MODULES

NODES = ("node-a", "node-b")
LOOPBACK = "127.0.0.1"
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "statefulset-controller",
)


@contextmanager
def serve(home: Path) -> Iterator[Cluster]:
    """Run a control plane and yield the cluster once both of its nodes are ready."""
    with ExitStack() as processes:
        control_plane = _ControlPlane(home, processes)
        control_plane.find_programs()
        control_plane.make_key()
        control_plane.start_etcd()
        control_plane.start_apiserver()
        cluster = Cluster(home, control_plane.url, control_plane.certificate, control_plane.token)
        processes.callback(cluster.close)
        control_plane.wait_for_apiserver(cluster)
        control_plane.start_controllers(cluster)
        for name in NODES:
            cluster.create("/api/v1/nodes", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
        wait_until(lambda: _is_usable(cluster), 120, "the cluster to have ready nodes and service accounts")
        yield cluster


class _ControlPlane:
    """The processes of the cluster, in the order in which they start; they end in the reverse order."""

    def __init__(self, home: Path, processes: ExitStack) -> None:
        self._home = home
        self._processes = processes
        self._etcd_url = f"http://{LOOPBACK}:{free_port()}"
        self._port = free_port()
        self._apiserver: Process | None = None
        self.url = f"https://{LOOPBACK}:{self._port}"
        self.token = secrets.token_urlsafe(24)
        self.certificate = home / "apiserver.crt"
        self._key = home / "apiserver.key"

    def find_programs(self) -> None:
        # Before anything runs: a missing one is a skip, and a skip should not cost half a start.
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"):
            find(name)

    def make_key(self) -> None:
        """One key pair for everything: the API server's certificate, its own CA, and service account tokens."""
        extensions = (f"subjectAltName=IP:{LOOPBACK},DNS:localhost", "keyUsage=digitalSignature,keyCertSign")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=testbed"]
        command += [word for extension in extensions for word in ("-addext", extension)]
        command += ["-keyout", str(self._key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)

    def start_etcd(self) -> None:
        """The API server's store."""
        peers = f"http://{LOOPBACK}:{free_port()}"
        etcd = self._start(
            "etcd",
            f"--data-dir={self._home / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )
        with httpx.Client(base_url=self._etcd_url, trust_env=False) as client:
            etcd.wait_ready(lambda: answers(client, "/health"))

    def start_apiserver(self) -> None:
        """The API server; anonymous requests are refused and RBAC decides the others."""
        tokens = self._home / "tokens.csv"
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        self._apiserver = self._start(
            "kube-apiserver",
            f"--etcd-servers={self._etcd_url}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self._port}",
            f"--tls-cert-file={self.certificate}",
            f"--tls-private-key-file={self._key}",
            f"--token-auth-file={tokens}",
            f"--client-ca-file={self.certificate}",
            "--anonymous-auth=false",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--service-account-issuer={self.url}",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            "--endpoint-reconciler-type=none",
            # It taints new nodes until a controller that we leave out, because it evicts pods when a busy machine makes
            # kubelets late, takes the taint away.
            "--disable-admission-plugins=TaintNodesByCondition",
            "--allow-privileged=true",
        )

    def wait_for_apiserver(self, cluster: Cluster) -> None:
        """Wait until the API server has its built-in roles and answers."""
        assert self._apiserver, "start_apiserver comes first"
        self._apiserver.wait_ready(lambda: cluster.answers("/readyz"), timeout=120)

    def start_controllers(self, cluster: Cluster) -> None:
        """Everything that makes the cluster move; each of them acts as the administrator."""
        kubeconfig = f"--kubeconfig={cluster.kubeconfig}"
        self._start(
            "kube-controller-manager",
            kubeconfig,
            f"--controllers={','.join(CONTROLLERS)}",
            f"--root-ca-file={self.certificate}",
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--leader-elect=false",
            "--secure-port=0",
        )
        self._start("kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0")
        self._start(
            "kwok",
            kubeconfig,
            f"--config={MODULES / 'kwok' / 'stages.yaml'}",
            "--manage-all-nodes",
            f"--node-ip={LOOPBACK}",
            "--cidr=10.244.0.0/16",
        )

    def _start(self, name: str, *flags: str) -> Process:
        process = Process([find(name), *flags], self._home / f"{name}.log")
        self._processes.callback(process.stop)
        return process


def _is_usable(cluster: Cluster) -> bool:
    nodes = cluster.get("/api/v1/nodes")["items"]
    conditions = [condition for node in nodes for condition in node.get("status", {}).get("conditions", ())]
    ready = [condition for condition in conditions if condition["type"] == "Ready" and condition["status"] == "True"]
    return len(ready) == len(NODES) and cluster.answers("/api/v1/namespaces/default/serviceaccounts/default")
