"""What tests do with the Kubernetes cluster that `apiserver.py` brings up: read, write, wait, and take identities.

Requests are plain HTTP on the API's own paths, so that a test shows exactly what the cluster was asked.
"""

from __future__ import annotations

import ssl
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.binaries import find
from tests.support.processes import answers, wait_until


class Cluster:
    """The cluster as its administrator sees it."""

    def __init__(self, home: Path, url: str, ca: Path, token: str) -> None:
        self.url = url
        self.ca = ca
        self._home = home
        self._client = self.client(token)
        self.kubeconfig = self.write_kubeconfig("admin", token)

    def close(self) -> None:
        """Close the administrator's client."""
        self._client.close()

    def client(self, token: str) -> httpx.Client:
        """An HTTP client that authenticates with a token; the caller closes it."""
        return httpx.Client(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=str(self.ca)),
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=30,
        )

    def answers(self, path: str) -> bool:
        """Whether the API server is there and a read of this path succeeds."""
        return answers(self._client, path)

    def get(self, path: str) -> dict[str, Any]:
        """Read an object or a list by its API path."""
        return self._send("GET", path)

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST an object to a collection's API path."""
        return self._send("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a patch into an object (strategic merge for built-in kinds)."""
        return self._send("PATCH", path, json=body, headers={"Content-Type": "application/strategic-merge-patch+json"})

    def put(self, path: str, body: Mapping[str, Any]) -> None:
        """Replace an object, unless it has changed since its version was read."""
        response = self._client.put(path, json=body)
        assert response.is_success or response.status_code == httpx.codes.CONFLICT, response.text

    def delete(self, path: str) -> None:
        """Delete an object; its dependents go in the background."""
        self._send("DELETE", path, params={"propagationPolicy": "Background"})

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """Run kubectl as the administrator; what it prints."""
        command = [str(find("kubectl")), "--kubeconfig", str(self.kubeconfig), *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def apply(self, manifests: str) -> None:
        """Apply YAML documents."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A namespace with a random name, deleted afterwards (without waiting for what was in it)."""
        name = f"test-{uuid.uuid4().hex[:10]}"
        self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            yield name
        finally:
            self.delete(f"/api/v1/namespaces/{name}")

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a token of a service account, which is made if it is not there."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if not self.answers(f"{accounts}/{name}"):
            self.create(accounts, {"metadata": {"name": name}})
        request = {"spec": {"expirationSeconds": 3600}}
        token = self.create(f"{accounts}/{name}/token", request)["status"]["token"]
        return self.write_kubeconfig(f"{namespace}-{name}", token, namespace)

    def client_certificate(self, user: str) -> tuple[Path, Path]:
        """The files of a certificate that makes its holder this user, and of its key."""
        key, request, certificate = (self._home / f"{user}.{end}" for end in ("key", "csr", "crt"))
        new = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={user}"]
        sign = [
            "openssl",
            "x509",
            "-req",
            "-days",
            "2",
            "-CA",
            str(self.ca),
            "-CAkey",
            str(self.ca.with_suffix(".key")),
        ]
        for words in ([*new, "-keyout", str(key), "-out", str(request)], [*sign, "-in", str(request)]):
            out = ["-out", str(certificate)] if words[1] == "x509" else []
            subprocess.run([*words, *out], check=True, capture_output=True)
        return certificate, key

    def grant(self, namespace: str, account: str, rules: Sequence[Mapping[str, Any]]) -> None:
        """Give a service account these RBAC rules within its namespace."""
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        self.create(f"{rbac}/roles", {"metadata": {"name": account}, "rules": list(rules)})
        subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
        self.create(f"{rbac}/rolebindings", {"metadata": {"name": account}, "subjects": [subject], "roleRef": role})

    def create_deployment(
        self, namespace: str, name: str, replicas: int = 1, *, annotations: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Create a Deployment, whose pods get the annotations; it is not waited for."""
        body = workload(name, replicas, annotations or {})
        return self.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", body)

    def deployment(self, namespace: str, name: str, replicas: int = 1) -> dict[str, Any]:
        """Create a Deployment and wait until it is ready."""
        self.create_deployment(namespace, name, replicas)
        return self.wait_rolled_out(namespace, name)

    def wait_rolled_out(self, namespace: str, name: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until the controller has seen the newest spec and every replica is new and available."""
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
        wait_until(lambda: _is_rolled_out(self.get(path)), timeout, f"{path} to be rolled out")
        return self.get(path)

    def write_kubeconfig(self, name: str, token: str, namespace: str = "default") -> Path:
        """A kubeconfig file whose user is whoever the token says."""
        path = self._home / f"{name}.kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": name, "namespace": namespace}}],
            "current-context": "bed",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def _send(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        response = self._client.request(method, path, **arguments)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        body: dict[str, Any] = response.json()
        return body


def workload(name: str, replicas: int, annotations: Mapping[str, str]) -> dict[str, Any]:
    """A Deployment (or StatefulSet) of one container, whose pods carry `app: <name>` and the annotations."""
    labels = {"app": name}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": dict(annotations)},
                "spec": {"containers": [{"name": "main", "image": "example/main:1"}]},
            },
        },
    }


def _is_rolled_out(deployment: Mapping[str, Any]) -> bool:
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return seen and counts == [wanted] * len(counts)
