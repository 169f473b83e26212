"""How the client meets clusters that refuse, fail, hang or are not there, and objects that change under its hands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.backends.kubernetes import objects
from app.backends.kubernetes.backend import KUBERNETES, KubernetesConnection
from app.backends.kubernetes.client import KubernetesClient
from app.backends.kubernetes.errors import StaleWriteError
from app.backends.kubernetes.objects import ObjectRef
from app.domain.errors import ActionError, PermanentError, TransientError
from app.domain.reasons import Reason
from tests.support.aio import run
from tests.support.processes import free_port

API = ObjectRef("Deployment", "shop", "api")


def test_a_write_that_lost_a_race_is_judged_again(kube: Any) -> None:
    """Somebody's change between our read and our write is seen by the second look, and both changes stay."""
    kube.create("Deployment", "api", 1)
    ref = ObjectRef("Deployment", kube.namespace, "api")
    seen = []

    def change(found: dict[str, Any]) -> dict[str, Any]:
        seen.append(found["spec"]["replicas"])
        if len(seen) == 1:
            kube.patch("Deployment", "api", replicas=2)
        return {"spec": {"minReadySeconds": 3}}

    async def work(clients: Any) -> tuple[dict[str, Any], bool]:
        return await (await KUBERNETES.client(clients)).update(ref, change)

    raw, written = kube.use(work)
    assert ([1, 2], True, 2, 3) == (seen[:2], written, raw["spec"]["replicas"], raw["spec"]["minReadySeconds"])


def test_a_scaling_that_lost_a_race_is_judged_again(kube: Any) -> None:
    """The scale subresource keeps the same promise."""
    kube.create("Deployment", "api", 1)
    ref = ObjectRef("Deployment", kube.namespace, "api")
    seen = []

    def change(found: dict[str, Any]) -> dict[str, Any]:
        seen.append(found["spec"]["replicas"])
        if len(seen) == 1:
            kube.patch("Deployment", "api", replicas=2)
        return {"spec": {"replicas": seen[-1] + 3}}

    async def work(clients: Any) -> tuple[dict[str, Any], bool]:
        return await (await KUBERNETES.client(clients)).update(ref, change, "scale")

    kube.use(work)
    assert ([1, 2], 5) == (seen[:2], kube.get("Deployment", "api")["spec"]["replicas"])


def test_an_object_that_never_rests_is_given_up_for_now(kube: Any) -> None:
    """A race lost every time ends without a write, as something that may pass."""
    kube.create("Deployment", "api", 1)
    ref = ObjectRef("Deployment", kube.namespace, "api")

    def change(found: dict[str, Any]) -> dict[str, Any]:
        kube.patch("Deployment", "api", replicas=found["spec"]["replicas"] + 1)
        return {"spec": {"minReadySeconds": 3}}

    async def work(clients: Any) -> tuple[dict[str, Any], bool]:
        return await (await KUBERNETES.client(clients)).update(ref, change)

    with pytest.raises(TransientError, match="kept changing"):
        kube.use(work)
    assert "minReadySeconds" not in kube.get("Deployment", "api")["spec"]


def test_what_the_server_finds_invalid_is_permanent(kube: Any) -> None:
    """A refusal by validation is not tried again, and its words are passed on."""
    kube.create("Deployment", "api", 1)
    ref = ObjectRef("Deployment", kube.namespace, "api")

    async def work(clients: Any) -> tuple[dict[str, Any], bool]:
        return await (await KUBERNETES.client(clients)).update(
            ref, lambda found: {"spec": {"replicas": -found["spec"]["replicas"]}}
        )

    with pytest.raises(PermanentError, match=r"answered 422 .* must be greater than or equal to 0") as caught:
        kube.use(work)
    assert Reason.ACTION_FAILED is caught.value.reason


def test_a_token_that_is_not_accepted_is_forbidden(kube: Any) -> None:
    """Wrong credentials are told apart from a cluster that is away."""
    stranger = type(kube)(kube.cluster, kube.namespace, kube.cluster.write_kubeconfig("stranger", "not-a-token"))
    with pytest.raises(PermanentError, match="did not accept the remediator's credentials") as caught:
        stranger.resolve("Deployment", "api")
    assert Reason.FORBIDDEN is caught.value.reason


def test_a_rotated_token_file_is_followed(kube: Any, tmp_path: Path) -> None:
    """A client that lives for weeks reads its token again before each call."""
    kube.create("Deployment", "api")
    config = yaml.safe_load(kube.kubeconfig.read_text())
    user = config["users"][0]["user"]
    token = tmp_path / "token"
    token.write_text("expired")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config | {"users": [{"name": "admin", "user": {"tokenFile": str(token)}}]}))

    async def work(clients: Any) -> str:
        client = await KUBERNETES.client(clients)
        with pytest.raises(PermanentError, match="did not accept"):
            await client.resolve("Deployment", kube.namespace, "api")
        token.write_text(user["token"])
        return (await client.resolve("Deployment", kube.namespace, "api")).name

    assert "api" == type(kube)(kube.cluster, kube.namespace, kubeconfig).use(work)


def test_inside_of_a_cluster_the_pods_service_account_is_used(
    kube: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a kubeconfig the token, CA and address that every pod is given are enough."""
    kube.create("Deployment", "api")
    account = yaml.safe_load(kube.kubeconfig.read_text())["users"][0]["user"]["token"]
    token = tmp_path / "token"
    token.write_text(account)
    host, _, port = kube.cluster.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr("kubernetes.aio.config.incluster_config.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("kubernetes.aio.config.incluster_config.SERVICE_CERT_FILENAME", str(kube.cluster.ca))
    pod = type(kube)(kube.cluster, kube.namespace, None)
    assert "api" == pod.resolve("Deployment", "api").name


def test_a_token_that_is_away_for_a_moment_is_transient(kube: Any, tmp_path: Path) -> None:
    """While its token file is being replaced, a client can only wait."""
    config = yaml.safe_load(kube.kubeconfig.read_text())
    token = tmp_path / "token"
    token.write_text(config["users"][0]["user"]["token"])
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config | {"users": [{"name": "admin", "user": {"tokenFile": str(token)}}]}))

    async def work(clients: Any) -> None:
        client = await KUBERNETES.client(clients)
        token.unlink()
        await client.resolve("Deployment", kube.namespace, "api")

    with pytest.raises(TransientError, match="No such file"):
        type(kube)(kube.cluster, kube.namespace, kubeconfig).use(work)


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_an_overloaded_or_failing_server_is_transient(tmp_path: Path, status: int) -> None:
    """These pass, and the time that the server asks for is handed on."""
    error = _error_of_get(tmp_path, f"HTTP/1.1 {status} Error\r\nRetry-After: 7\r\n", '{"message": "later"}')
    assert (TransientError, 7.0) == (type(error), getattr(error, "retry_after", None))
    assert f"answered {status} when asked to get deployments (apps) in namespace shop: later" in error.message


@pytest.mark.parametrize(
    ("status", "content", "kind", "reason"),
    [
        (
            404,
            {"kind": "Status", "reason": "NotFound", "message": "nicht gefunden"},
            PermanentError,
            "target_not_found",
        ),
        (404, "404 page not found", PermanentError, "action_failed"),
        (404, {"message": 'deployments.apps "api" not found'}, PermanentError, "action_failed"),
        (409, {"kind": "Status", "reason": "Conflict", "message": "x"}, StaleWriteError, "changed_since_planned"),
        (409, {"kind": "Status", "reason": "AlreadyExists", "message": "x"}, PermanentError, "action_failed"),
        (403, {"kind": "Status", "reason": "Forbidden", "message": "not found"}, PermanentError, "forbidden"),
        (410, {"kind": "Status", "reason": "Expired", "message": "x"}, TransientError, "target_unreachable"),
        (422, {"kind": "Status", "reason": "Invalid", "message": "Unauthorized"}, PermanentError, "action_failed"),
        (400, "<html>Forbidden</html>", PermanentError, "action_failed"),
    ],
)
def test_a_refusal_is_known_by_its_codes(
    tmp_path: Path, status: int, content: Any, kind: type[ActionError], reason: str
) -> None:
    """Status and reason decide; the message is for people, and a proxy's page proves nothing about an object."""
    text = content if isinstance(content, str) else json.dumps(content)
    error = _error_of_get(tmp_path, f"HTTP/1.1 {status} Error\r\n", text)
    assert (kind, reason) == (type(error), error.reason.value)


def test_an_api_that_the_cluster_does_not_have_is_no_missing_object(kube: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older or smaller cluster answers 404 for all of a kind; nothing is known of an object then."""
    monkeypatch.setitem(objects._RESOURCES, "Deployment", ("apps.example.com", "v1", "deployments"))
    with pytest.raises(PermanentError, match="answered 404") as caught:
        kube.resolve("Deployment", "api")
    assert Reason.ACTION_FAILED is caught.value.reason


def test_an_answer_of_something_else_is_transient(tmp_path: Path) -> None:
    """A proxy's page is no object."""
    error = _error_of_get(tmp_path, "HTTP/1.1 200 OK\r\n", "<html>maintenance</html>")
    assert (TransientError, Reason.TARGET_UNREACHABLE) == (type(error), error.reason)


def test_a_cut_connection_is_transient(tmp_path: Path) -> None:
    """A connection that ends without an answer."""
    error = _error_of_get(tmp_path, "", "")
    assert (TransientError, Reason.TARGET_UNREACHABLE) == (type(error), error.reason)


def test_a_server_that_does_not_answer_is_transient(tmp_path: Path) -> None:
    """Each call ends at the timeout."""

    async def body() -> ActionError:
        release = asyncio.Event()
        async with _server(lambda _: release.wait()) as url:
            error = await _get(_kubeconfig(tmp_path, url), timedelta(seconds=0.2))
            release.set()
        return error

    error = run(body())
    assert (TransientError, "no answer within 0.2 s") == (type(error), error.message[:22])


def test_a_refused_connection_is_transient(tmp_path: Path) -> None:
    """Nobody listens there."""
    error = run(_get(_kubeconfig(tmp_path, f"http://127.0.0.1:{free_port()}")))
    assert (TransientError, Reason.TARGET_UNREACHABLE) == (type(error), error.reason)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", "clusters: 5"])
def test_an_unusable_kubeconfig_is_a_configuration_error(tmp_path: Path, text: str | None) -> None:
    """A missing, broken or empty file is said to be so, with its path."""
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    error = run(_get(path))
    assert (Reason.CONFIG_INVALID, True) == (error.reason, str(path) in error.message)


def test_outside_of_a_cluster_a_kubeconfig_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kubeconfig and without a service account there is nothing to connect with."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    error = run(_get(None))
    assert (Reason.CONFIG_INVALID, True) == (error.reason, "the service account of this pod" in error.message)


async def _get(kubeconfig: Path | None, timeout: timedelta = timedelta(seconds=5)) -> ActionError:
    """The error of one read."""
    async with AsyncExitStack() as stack:
        try:
            client = await KubernetesClient.connect(KubernetesConnection(kubeconfig=kubeconfig), timeout)
            stack.push_async_callback(client.close)
            await client.get(API)
        except ActionError as error:
            return error
    raise AssertionError("the read succeeded")


def _error_of_get(tmp_path: Path, head: str, content: str) -> ActionError:
    async def answer(writer: asyncio.StreamWriter) -> None:
        if head:
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
            await writer.drain()

    async def body() -> ActionError:
        async with _server(answer) as url:
            return await _get(_kubeconfig(tmp_path, url))

    return run(body())


@asynccontextmanager
async def _server(answer: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """A server that reads one request and answers it as told: what a real API server cannot be made to do."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(writer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _kubeconfig(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "kubeconfig"
    config = {
        "clusters": [{"name": "bed", "cluster": {"server": url}}],
        "users": [{"name": "bed", "user": {"token": "token"}}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
        "current-context": "bed",
    }
    path.write_text(yaml.safe_dump(config))
    return path
