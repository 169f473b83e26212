"""Many connections that never finish a request, and a process that may open 300 files: Alertmanager gets through."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.bench import write_yaml
from tests.hostile.test_tls import Authority
from tests.support.alerts import alert, notification
from tests.support.processes import wait_until
from tests.support.service import Service, ServiceOptions, serve

FILES = 300
CROWD = 320
TOKEN = "s3cret-of-the-test"
_REQUEST = b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_AUTHORIZED = _REQUEST + f"Authorization: Bearer {TOKEN}\r\n".encode()
# What each connection sends at once, and then again and again.
ATTACKS = {
    "nothing": (b"", b""),
    "half a header": (_REQUEST + b"X-Half: ", b""),
    "a slow header": (_REQUEST + b"X-Slow: ", b"x"),
    "empty lines": (b"", b"\r\n"),
    "a body without a token": (_REQUEST + b"Content-Length: 100000\r\n\r\n{", b" "),
    "a slow body": (_AUTHORIZED + b"Content-Length: 100000\r\n\r\n{", b" "),
    "idle": (b"GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b""),
}


def join(port: int, first: bytes) -> socket.socket | None:
    """Connect and send the beginning; None where that is refused."""
    one = socket.socket()
    try:
        one.settimeout(1)
        one.connect(("127.0.0.1", port))
        one.sendall(first)
    except OSError:
        one.close()
        return None
    one.setblocking(False)
    return one


def stands(one: socket.socket, again: bytes) -> bool:
    """Send a little more; whether the connection was still there."""
    try:
        one.send(again)
        return bool(again) or one.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextmanager
def crowd(port: int, attack: str) -> Iterator[None]:
    """So many connections that are held, and opened again where they are ended, as long as the body runs."""
    first, again = ATTACKS[attack]
    held = [one for one in (join(port, first) for _ in range(CROWD)) if one is not None]
    over = threading.Event()

    def press() -> None:
        while not over.wait(0.5):
            for number, one in enumerate(held):
                if not stands(one, again):
                    one.close()
                    held[number] = join(port, first) or one

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for one in held:
            one.close()


@contextmanager
def few_files(
    home: Path, tls: dict[str, str] | None = None, context: ssl.SSLContext | None = None
) -> Iterator[Service]:
    """The service with tokens, in a process that may open few files."""
    catalog = write_yaml(home / "catalog.yaml", {"remediations": []})
    tokens = [
        {"name": "am", "role": "alertmanager", "value": TOKEN},
        {"name": "ops", "role": "admin", "value": "adm1n-token"},
    ]
    config = write_yaml(home / "config.yaml", {"auth": {"tokens": tokens}, "tls": tls or {}})
    limits = ("prlimit", f"--nofile={FILES}:{FILES}", "--")
    options = ServiceOptions(home / "data", None, [catalog], config, within=limits, tls=context, token="adm1n-token")
    with serve(home, options) as running:
        yield running


def notify(url: str, verify: Any = True) -> None:
    """A notification over a connection of its own; like Alertmanager, it is sent again after a 503."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

    def taken() -> bool:
        try:
            with httpx.Client(base_url=url, verify=verify, trust_env=False, timeout=10) as client:
                answer = client.post("/webhooks/alertmanager", content=notification(alert()), headers=headers)
        except httpx.TransportError as error:
            raise AssertionError(f"reset: {error!r}") from error
        assert answer.status_code in {202, 503}
        return answer.status_code == 202

    wait_until(taken, 20, "a notification to be taken")


@pytest.mark.parametrize("attack", ATTACKS)
def test_alertmanager_gets_through_a_crowd(attack: str, tmp_path: Path) -> None:
    """Nothing is reset: neither a new connection, nor one that has shown its token before."""
    with few_files(tmp_path) as running, ExitStack() as stack:
        known = stack.enter_context(httpx.Client(base_url=running.url, trust_env=False, timeout=10))
        headers = {"Authorization": "Bearer adm1n-token"}
        with known.stream("GET", "/events", headers=headers | {"Accept": "text/event-stream"}) as stream:
            with crowd(running.port, attack):
                for _ in range(10):
                    notify(running.url)
                assert 200 == running.get("/remediations").status_code
            assert 200 == stream.status_code
            assert not stream.is_closed
        assert "socket.accept() out of system resource" not in running.logs
        assert "Traceback" not in running.logs


def test_handshakes_that_never_end_keep_nobody_out(tmp_path: Path) -> None:
    """Over TLS, too, where a connection costs a file before it has said anything."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    context = authority.client()
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    with few_files(tmp_path, tls, context) as running:
        for attack in ("nothing", "half a header"):
            with crowd(running.port, attack):
                for _ in range(5):
                    notify(running.url, context)
        assert "Traceback" not in running.logs


def _ended_within(port: int, attack: str, seconds: float, pause: Callable[[], None]) -> bool:
    first, again = ATTACKS[attack]
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(first)
        one.settimeout(0.2)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if again:
                    one.sendall(again)
                if one.recv(4096) == b"":
                    return True
            except TimeoutError:
                pause()
            except OSError:
                return True
    return False


def test_a_request_that_does_not_come_in_is_ended(tmp_path: Path) -> None:
    """Each kind alone, without any crowd; the reason is counted."""
    with few_files(tmp_path) as running:
        threads = []
        ended: dict[str, bool] = {}

        def attack(name: str) -> None:
            ended[name] = _ended_within(running.port, name, 30, lambda: None)

        for name in ATTACKS:
            threads.append(threading.Thread(target=attack, args=(name,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        assert dict.fromkeys(ATTACKS, True) == ended
        metrics = running.get("/metrics").text
        assert 'remediator_connections_ended_total{reason="slow_headers"} 0.0' not in metrics
        assert 'remediator_connections_ended_total{reason="slow_body"} 0.0' not in metrics


def test_a_large_body_over_a_slow_line_is_taken(tmp_path: Path) -> None:
    """What makes progress has its time."""
    body = notification(alert(description="x" * 60_000), alert(b="x" * 60_000), alert(c="x" * 60_000))
    head = _AUTHORIZED + f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with few_files(tmp_path) as running, socket.create_connection(("127.0.0.1", running.port)) as one:
        one.sendall(head)
        for begin in range(0, len(body), 12_000):
            one.sendall(body[begin : begin + 12_000])
            time.sleep(0.5)  # the slow line
        one.settimeout(10)
        assert one.recv(4096).startswith(b"HTTP/1.1 202")
