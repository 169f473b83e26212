"""Whatever is wrong with a kubeconfig, or with the proxy that it names: no error repeats a secret of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest

from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.kubernetes.backend import KUBERNETES, KubernetesConnection
from app.backends.scope import Scope
from app.domain.errors import ActionError
from app.domain.reasons import Reason
from tests.support.aio import run

SECRET = "correct-horse-9"
FILE = """
current-context: bed
clusters: [{{name: bed, cluster: {{server: "https://127.0.0.1:1", proxy-url: "{proxy}"}}}}]
users: [{{name: me, user: {{token: {token}}}}}]
contexts: [{{name: bed, context: {{cluster: bed, user: me}}}}]
"""


def refusal(path: Path, text: str) -> ActionError:
    """What the first question to the cluster ends with."""
    path.write_text(text)

    async def ask() -> None:
        connections = Connections(
            kubernetes={"default": KubernetesConnection(kubeconfig=path)}, timeout=timedelta(seconds=5)
        )
        clients = Clients(connections, Scope())
        try:
            await (await KUBERNETES.client(clients)).resolve("Deployment", "shop", "api")
        finally:
            await clients.close()

    with pytest.raises(ActionError) as caught:
        run(ask())
    return caught.value


@pytest.mark.parametrize("mark", ["*", "@", "!!", "%", "`", "&x &", '"', "]"])
def test_yaml_that_cannot_be_read_is_not_quoted(tmp_path: Path, mark: str) -> None:
    """A secret without quotes may begin with anything."""
    error = refusal(tmp_path / "config", FILE.format(proxy="", token=mark + SECRET))
    assert (Reason.CONFIG_INVALID, True) == (error.reason, "no valid YAML at line " in error.message), error.message
    assert SECRET not in error.message


def test_what_is_no_kubeconfig_is_refused(tmp_path: Path) -> None:
    """Lists that are none are an error of the file, not of ours."""
    error = refusal(tmp_path / "config", "{users: 3, contexts: x, clusters: y, current-context: z}")
    assert (Reason.CONFIG_INVALID, True) == (error.reason, "must be lists of named objects" in error.message)


@pytest.mark.parametrize("port", ["port", "99999"])
def test_a_proxys_address_that_cannot_be_read_is_not_quoted(tmp_path: Path, port: str) -> None:
    """It has a password in it."""
    error = refusal(tmp_path / "config", FILE.format(proxy=f"http://me:{SECRET}@127.0.0.1:{port}", token="t"))
    assert (Reason.CONFIG_INVALID, True) == (error.reason, "cluster.proxy-url must be" in error.message)
    assert SECRET not in error.message


@pytest.fixture
def answer() -> bytes:
    """What the proxy says to everything."""
    return b""


@pytest.fixture
def proxy(answer: bytes) -> Iterator[int]:
    """The port of a proxy that connects nobody."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"what\r\n\r\n",
        f"HTTP/1.1 502 {SECRET}\r\n\r\n".encode(),
        b"",
    ],
)
def test_a_proxy_that_refuses_does_not_show_its_password(tmp_path: Path, proxy: int) -> None:
    """The library's errors repeat the URL, and what the proxy says."""
    error = refusal(tmp_path / "config", FILE.format(proxy=f"http://me:{SECRET}@127.0.0.1:{proxy}", token="t"))
    assert (Reason.TARGET_UNREACHABLE, False) == (error.reason, SECRET in error.message), error.message
