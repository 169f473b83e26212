"""Which user a kubeconfig makes of the remediator: the one that kubectl would be with the same file, or none at all."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from app.backends.kubernetes.backend import KUBERNETES
from app.domain.errors import PermanentError, TransientError
from app.domain.reasons import Reason
from tests.support.binaries import find
from tests.support.processes import wait_until

KIND = "client.authentication.k8s.io/v1"
READ = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}


@pytest.fixture
def api(kube: Any) -> Any:
    """The namespace with a Deployment `api` in it."""
    kube.create("Deployment", "api")
    return kube


def as_user(kube: Any, user: Mapping[str, Any], cluster: Mapping[str, Any] | None = None) -> Any:
    """The same namespace through a kubeconfig with these fields beside the address; null takes a field away."""
    raw = yaml.safe_load(kube.kubeconfig.read_text())
    raw["users"][0]["user"] = dict(user)
    raw["clusters"][0]["cluster"] |= cluster or {}
    path = kube.kubeconfig.with_name(f"{kube.namespace}.kubeconfig")
    path.write_text(yaml.safe_dump(raw))
    return replace(kube, kubeconfig=path)


def admin(kube: Any) -> str:
    """The administrator's token."""
    token: str = yaml.safe_load(kube.cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    return token


def reads(kube: Any) -> bool:
    """Whether this user may read the Deployment; kubectl with the same file must say the same."""
    words = ["--kubeconfig", str(kube.kubeconfig), "--namespace", kube.namespace, "get", "deployment", "api"]
    told = subprocess.run([str(find("kubectl")), *words], capture_output=True, text=True, check=False)
    if told.returncode == 0:
        return bool(kube.resolve("Deployment", "api").name)
    assert "forbidden" in told.stderr.lower(), told.stderr
    with pytest.raises(PermanentError) as caught:
        kube.resolve("Deployment", "api")
    assert Reason.FORBIDDEN is caught.value.reason
    return False


def bind(kube: Any, name: str, subject: Mapping[str, str], *rules: Mapping[str, Any]) -> None:
    """Give a user or group these rules in the namespace."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{kube.namespace}"
    kube.cluster.create(f"{rbac}/roles", {"metadata": {"name": name}, "rules": list(rules)})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    whole = {"apiGroup": "rbac.authorization.k8s.io", **subject}
    kube.cluster.create(f"{rbac}/rolebindings", {"metadata": {"name": name}, "subjects": [whole], "roleRef": role})


def test_an_impersonated_user_has_only_its_own_rights(api: Any) -> None:
    """An administrator that is told to act as somebody else is somebody else."""
    reader = as_user(api, {"token": admin(api), "as": f"system:serviceaccount:{api.namespace}:reader"})
    assert not reads(reader)
    api.as_account("reader", READ)
    assert reads(reader)


def test_each_impersonated_group_counts(api: Any) -> None:
    """Several groups are several headers, of which each gives its rights."""
    bind(api, "sre", {"kind": "Group", "name": "sre"}, READ)
    assert not reads(as_user(api, {"token": admin(api), "as": "jane", "as-groups": ["dev", "ops"]}))
    assert reads(as_user(api, {"token": admin(api), "as": "jane", "as-groups": ["dev", "sre", "ops"]}))


def test_uid_and_extra_are_sent(api: Any) -> None:
    """The API server sees them as it does from kubectl."""
    extra = {"acme.com/Project": ["a b", "two"], "reason": ["night shift"]}
    user = {"token": admin(api), "as": "jane", "as-uid": "4711", "as-user-extra": extra}
    bind(api, "jane", {"kind": "User", "name": "jane"}, READ)
    someone = as_user(api, user)
    assert reads(someone)
    words = ["--kubeconfig", str(someone.kubeconfig), "auth", "whoami", "-o", "json"]
    told = subprocess.run([str(find("kubectl")), *words], capture_output=True, text=True, check=True)
    with proxy() as seen:
        someone.kubeconfig.write_text(someone.kubeconfig.read_text().replace(api.cluster.url, seen.url))
        raw = yaml.safe_load(someone.kubeconfig.read_text())
        del raw["clusters"][0]["cluster"]["certificate-authority"]
        someone.kubeconfig.write_text(yaml.safe_dump(raw))
        someone.resolve("Deployment", "api")
        ours = seen.impersonation()
        subprocess.run([str(find("kubectl")), *words], capture_output=True, check=False)
    assert ours == seen.impersonation()
    assert json.loads(told.stdout)["status"]["userInfo"]["uid"] == "4711"


def test_who_may_not_impersonate_is_forbidden(api: Any) -> None:
    """The base user's own right to read is of no use then."""
    account = api.as_account("plain", READ)
    token = yaml.safe_load(account.kubeconfig.read_text())["users"][0]["user"]["token"]
    assert reads(as_user(api, {"token": token}))
    assert not reads(as_user(api, {"token": token, "as": "jane"}))


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ({"as-groups": ["sre"]}, "need user.as"),
        ({"as": "jane\r\nImpersonate-Group: system:masters"}, "printable"),
        ({"as": "jane", "as-groups": ["a\nb"]}, "printable"),
        ({"as": ["jane"]}, "user.as: input should be a valid string"),
        ({"as": "jane", "as-groups": "system:masters"}, "user.as-groups: input should be a valid list"),
        ({"asGroups": ["sre"]}, "user.asGroups is no field"),
        ({"auth-provider": {"name": "oidc", "config": {"id-token": "a.b.c"}}}, "auth-provider is not supported"),
        ({"tokenFile": "token"}, "token and tokenFile"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "true"}}, "token and exec"),
        ({"username": "jane", "password": "correct-horse"}, "token and username"),
        ({"token": None, "client-certificate-data": "eA=="}, "go together"),
        ({"token": None, "client-key": "/key"}, "go together"),
        ({"token": None, "username": "jane"}, "go together"),
        ({"token": 12345678}, "user.token: input should be a valid string"),
        ({"token": None, "exec": {"apiVersion": "v1", "command": "./plugin"}}, "absolute path"),
        ({"token": None, "exec": {"apiVersion": "v1", "command": "p", "interactiveMode": "Always"}}, "a person"),
    ],
)
def test_what_cannot_be_honoured_of_a_user_is_refused(kube: Any, user: Mapping[str, Any], problem: str) -> None:
    """Nothing is asked of the cluster in a name that the file does not mean, and no secret is in the message."""
    _assert_refused(as_user(kube, {"token": "correct-horse", **user}), problem)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"insecure-skip-tls-verify": True}, "would leave the given certificate-authority out"),
        ({"insecure-skip-tls-verify": "false"}, "cluster.insecure-skip-tls-verify: input should be a valid boolean"),
        ({"certificate-authority-data": "eA=="}, "are both given"),
        ({"proxy-url": "socks5://127.0.0.1:1080"}, "http or https URL"),
        ({"server": "https://me:correct-horse@127.0.0.1:1"}, "must not hold a user"),
        ({"tlsServerName": "api"}, "cluster.tlsServerName is no field"),
    ],
)
def test_what_cannot_be_honoured_of_a_cluster_is_refused(kube: Any, given: Mapping[str, Any], problem: str) -> None:
    """A server that is not checked as the file says is not spoken to."""
    _assert_refused(as_user(kube, {"token": "correct-horse"}, given), problem)


def test_a_certificate_needs_a_connection_that_carries_it(kube: Any) -> None:
    """Over HTTP the user would be nobody."""
    user = {"client-certificate-data": "eA==", "client-key-data": "eA=="}
    _assert_refused(as_user(kube, user, {"server": "http://127.0.0.1:1"}), "use https")


def test_a_context_whose_user_is_missing_is_refused(kube: Any) -> None:
    """It would be nobody's request otherwise."""
    raw = yaml.safe_load(kube.kubeconfig.read_text())
    raw["contexts"][0]["context"]["user"] = "somebody"
    path = kube.kubeconfig.with_name("missing.kubeconfig")
    path.write_text(yaml.safe_dump(raw))
    _assert_refused(replace(kube, kubeconfig=path), "'somebody' is not among its users")


def test_a_netrc_file_adds_no_user(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HTTP library would send its name and password beside the kubeconfig's credentials, or in their place."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert reads(api)


def test_a_token_file_may_end_with_a_newline(api: Any) -> None:
    """Its path is relative to the kubeconfig, as for kubectl."""
    api.kubeconfig.with_name("token-beside").write_text(f"{admin(api)}\n")
    assert reads(as_user(api, {"tokenFile": "token-beside"}))


def test_an_empty_token_file_is_nobody(api: Any) -> None:
    """No request goes out without a user."""
    api.kubeconfig.with_name("token-empty").write_text("\n")
    with pytest.raises((PermanentError, TransientError), match=r"the token file .* is empty"):
        as_user(api, {"tokenFile": "token-empty"}).resolve("Deployment", "api")


def _plugin(tmp_path: Path, text: str) -> dict[str, Any]:
    """An exec plugin that runs this shell text."""
    file = tmp_path / "plugin"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": KIND, "command": str(file), "interactiveMode": "Never"}}


def _credential(**status: str) -> str:
    kind = {"apiVersion": KIND, "kind": "ExecCredential"}
    return f"cat <<'END'\n{json.dumps(kind | {'status': status})}\nEND"


@pytest.mark.parametrize("end", [{}, {"expirationTimestamp": "2099-01-01T00:00:00Z"}])
def test_a_plugins_token_is_used(api: Any, tmp_path: Path, end: dict[str, str]) -> None:
    """An exec plugin says who we are."""
    assert reads(as_user(api, _plugin(tmp_path, _credential(token=admin(api), **end))))


def test_a_plugin_is_told_of_the_cluster_where_it_asks(api: Any, tmp_path: Path) -> None:
    """As those of GKE do; its arguments and variables are its own."""
    text = 'printf "%s" "$KUBERNETES_EXEC_INFO $OWN $1" > "$(dirname "$0")/told"; ' + _credential(token=admin(api))
    user = _plugin(tmp_path, text)
    user["exec"] |= {"provideClusterInfo": True, "args": ["one"], "env": [{"name": "OWN", "value": "mine"}]}
    assert reads(
        as_user(api, user, {"extensions": [{"name": KIND.partition("/")[0] + "/exec", "extension": {"a": 1}}]})
    )
    told = (tmp_path / "told").read_text()
    assert told.endswith(" mine one")
    info = json.loads(told.removesuffix(" mine one"))
    cluster = info["spec"]["cluster"]
    assert (api.cluster.url, {"a": 1}) == (cluster["server"], cluster["config"])
    assert api.cluster.ca.read_bytes() == base64.b64decode(cluster["certificate-authority-data"])


def test_a_plugin_that_hangs_is_ended(api: Any, tmp_path: Path) -> None:
    """With what it started, and with the call that needs its token."""
    hang = "sleep 600 & echo $! > pid; wait"
    text = f'cd "$(dirname "$0")"; test -e on && {{ {hang}; }}; {_credential(token="x")}'
    someone = as_user(api, _plugin(tmp_path, text))

    async def work(clients: Any) -> None:
        client = await KUBERNETES.client(clients)
        client._timeout = 0.5
        (tmp_path / "on").touch()
        await client.resolve("Deployment", api.namespace, "api")

    with pytest.raises(TransientError, match=r"no answer within 0.5 s"):
        someone.use(work)
    pid = (tmp_path / "pid").read_text().strip()
    wait_until(
        lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_text(),
        10,
        "it to end",
    )


@pytest.mark.parametrize(
    "text",
    [
        "echo correct-horse >&2; exit 1",
        "echo '{}'",
        "echo correct-horse",
        _credential(clientCertificateData="correct-horse", clientKeyData="correct-horse"),
    ],
)
def test_a_plugin_that_fails_is_nobody(api: Any, tmp_path: Path, text: str) -> None:
    """The library would go on without any user; what the plugin prints is not passed on."""
    _assert_refused(as_user(api, _plugin(tmp_path, text)), "the plugin")


def test_a_client_certificate_is_used(api: Any) -> None:
    """By file, relative to the kubeconfig, and inline; another user can be acted as with it, too."""
    files = api.cluster.client_certificate("jane")
    names = {"client-certificate": files[0].name, "client-key": files[1].name}
    data = {
        f"{name}-data": base64.b64encode(file.read_bytes()).decode() for name, file in zip(names, files, strict=True)
    }
    assert not reads(as_user(api, names))
    bind(api, "jane", {"kind": "User", "name": "jane"}, READ)
    assert reads(as_user(api, names))
    assert reads(as_user(api, data))
    assert not reads(as_user(api, {**data, "as": "john"}))


def test_a_certificate_beside_a_token_counts_as_for_kubectl(api: Any) -> None:
    """Both are sent, as AKS' administrators have them; which one counts is the API server's business."""
    files = api.cluster.client_certificate("jane")
    names = {"client-certificate": files[0].name, "client-key": files[1].name}
    for token in (admin(api), "unknown"):
        reads(as_user(api, {**names, "token": token}))
    bind(api, "jane", {"kind": "User", "name": "jane"}, READ)
    assert reads(as_user(api, {**names, "token": admin(api)}))


def test_the_name_in_the_servers_certificate_is_checked(api: Any) -> None:
    """`tls-server-name` is the name that must be in it, for better or worse."""
    assert reads(as_user(api, {"token": admin(api)}, {"tls-server-name": "localhost"}))
    with pytest.raises(TransientError, match="certificate"):
        as_user(api, {"token": admin(api)}, {"tls-server-name": "elsewhere.test"}).resolve("Deployment", "api")


def test_an_authority_may_be_inline_or_left_out(api: Any) -> None:
    """Inline it is the file's; without one the system's authorities count, and do not know the bed."""
    data = base64.b64encode(api.cluster.ca.read_bytes()).decode()
    without = {"certificate-authority": None}
    assert reads(as_user(api, {"token": admin(api)}, {**without, "certificate-authority-data": data}))
    assert reads(as_user(api, {"token": admin(api)}, {**without, "insecure-skip-tls-verify": True}))
    with pytest.raises(TransientError, match="certificate"):
        as_user(api, {"token": admin(api)}, without).resolve("Deployment", "api")


def test_a_proxy_is_used(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's, and without it that of the environment, which NO_PROXY keeps away."""
    with proxy() as seen:
        user = {"token": admin(api)}
        with pytest.raises(TransientError, match="cannot reach"):
            as_user(api, user, {"proxy-url": seen.url}).resolve("Deployment", "api")
        assert ["CONNECT"] == seen.methods
        monkeypatch.setenv("HTTPS_PROXY", seen.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(TransientError, match="cannot reach"):
            as_user(api, user).resolve("Deployment", "api")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        as_user(api, user).resolve("Deployment", "api")
        assert ["CONNECT", "CONNECT"] == seen.methods


def _assert_refused(kube: Any, problem: str) -> None:
    with pytest.raises(PermanentError, match=r"cannot read the cluster's credentials") as caught:
        kube.resolve("Deployment", "api")
    assert (Reason.CONFIG_INVALID, True) == (caught.value.reason, problem in caught.value.message), caught.value.message
    assert "correct-horse" not in caught.value.message


class _Seen:
    """What came to a server that answers every GET with an object, and connects nobody."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.methods: list[str] = []
        self.headers: list[list[tuple[str, str]]] = []

    def impersonation(self) -> list[tuple[str, str]]:
        """The impersonation headers of the latest request."""
        return sorted((k.lower(), v) for k, v in self.headers[-1] if k.lower().startswith("impersonate-"))


@contextmanager
def proxy() -> Iterator[_Seen]:
    """A server on loopback that only looks."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            seen.methods.append(self.command)
            seen.headers.append(self.headers.items())
            self.send_response(502 if self.command == "CONNECT" else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_CONNECT = _answer  # noqa: N815 - the names that the library calls

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = _Seen(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
