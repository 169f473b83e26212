"""http.request against a real server."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.backends.connections import Connections
from app.backends.http.actions.request import Request
from app.domain.errors import ActionError, OutcomeUnknownError, PermanentError, TransientError
from app.domain.model import JsonObject
from app.domain.reasons import Reason
from tests.support import contexts, web
from tests.support.binaries import find
from tests.support.processes import free_port

ACTION = Request()
Configured = Callable[..., Connections]


def send(connections: Connections, **given: Any) -> JsonObject:
    """Plan and apply."""
    return contexts.apply(connections, ACTION, contexts.plan(connections, ACTION, **given))


def error_of(connections: Connections, **given: Any) -> ActionError:
    """What applying raises."""
    step = contexts.plan(connections, ACTION, **given)
    with pytest.raises(ActionError) as caught:
        contexts.apply(connections, ACTION, step)
    return caught.value


def test_sends_what_was_planned(site: web.WebServer, configured: Configured) -> None:
    """Method, path, query, headers and body arrive as written."""
    url = f"{site.url}/purge?zone=a"
    result = send(configured(), url=url, method="PUT", headers={"X-Zone": "a"}, json={"all": True})
    asked = site.requests[0]
    assert {"status": 200, "body": "ok"} == result
    assert ("PUT", "/purge?zone=a", "a") == (asked.method, asked.path, asked.headers["X-Zone"])
    assert ({"all": True}, "application/json") == (json.loads(asked.body), asked.headers["Content-Type"])


@pytest.mark.parametrize(
    ("scheme", "why"), [("http", "connection refused"), ("https", "no TLS connection: wrong version number")]
)
def test_the_cause_of_no_connection_is_named(
    site: web.WebServer, configured: Configured, scheme: str, why: str
) -> None:
    """As the system names it; the query is not."""
    place = f"127.0.0.1:{free_port()}" if scheme == "http" else site.url.removeprefix("http://")
    error = error_of(configured(), url=f"{scheme}://{place}/purge?token=hunter2")
    assert (f"cannot connect to {scheme}://{place}/purge: {why}", True) == (
        error.message,
        isinstance(error, TransientError),
    )


def test_planning_sends_nothing(site: web.WebServer, configured: Configured) -> None:
    """A plan names the request without its query and does not make it."""
    step = contexts.plan(configured(), ACTION, url=f"{site.url}/purge?zone=a", body="x")
    assert (f"POST {site.url}/purge", []) == (step.summary, site.requests)


def test_the_bearer_token_is_sent_and_kept_nowhere(site: web.WebServer, configured: Configured) -> None:
    """The secret is in the request only."""
    step = contexts.plan(configured(), ACTION, url=site.url, bearer_token="api")
    result = contexts.apply(configured(), ACTION, step)
    assert "Bearer correct-horse" == site.requests[0].headers["Authorization"]
    assert "correct-horse" not in step.model_dump_json() + json.dumps(result)


def test_a_secret_that_is_not_configured_is_refused(site: web.WebServer, configured: Configured) -> None:
    """Planning finds the missing secret before anything is sent."""
    with pytest.raises(PermanentError, match="nope") as caught:
        contexts.plan(configured(), ACTION, url=site.url, bearer_token="nope")
    assert Reason.CONFIG_INVALID == caught.value.reason


def test_a_token_that_no_header_can_carry_is_not_shown(site: web.WebServer, configured: Configured) -> None:
    """A file with two lines in it is a mistake that must not spill its content."""
    connections = configured(secrets={"api": {"value": "correct\nhorse"}})
    error = error_of(connections, url=site.url, bearer_token="api")
    assert (Reason.CONFIG_INVALID, False) == (error.reason, "horse" in error.message)


def test_a_hosts_own_headers_are_sent_and_not_kept(site: web.WebServer, configured: Configured) -> None:
    """They replace a header of the step, and neither plan nor result has them."""
    connections = configured(http={"127.0.0.1": {"headers": {"x-tenant": "correct-horse"}}})
    step = contexts.plan(connections, Request(), url=site.url, headers={"X-Tenant": "mine"})
    result = contexts.apply(connections, Request(), step)
    assert ["correct-horse"] == [
        value for name, value in site.requests[0].headers.items() if name.lower() == "x-tenant"
    ]
    assert "correct-horse" not in step.model_dump_json() + json.dumps(result)


def test_a_hosts_own_query_is_sent_and_not_kept(site: web.WebServer, configured: Configured) -> None:
    """Where a system takes its credential in the URL only; neither plan nor result nor an echo of it has it."""
    site.echo = lambda asked: asked.path.encode()
    query = {"api_key": {"value": "correct horse"}, "tenant": "shop"}
    connections = configured(http={"127.0.0.1": {"query": query}})
    step = contexts.plan(connections, Request(), url=f"{site.url}/purge?cache=a%2Fb")
    result = contexts.apply(connections, Request(), step)
    assert "/purge?cache=a%2Fb&api_key=correct+horse&tenant=shop" == site.requests[0].path
    assert "correct" not in step.model_dump_json() + json.dumps(result)


def test_a_query_parameter_is_given_once(site: web.WebServer, configured: Configured) -> None:
    """Which of two a server takes should not be guessed."""
    connections = configured(http={"127.0.0.1": {"query": {"tenant": "shop"}}})
    assert "'tenant' is given twice" in error_of(connections, url=f"{site.url}/?tenant=other").message
    assert [] == site.requests


def test_the_idempotency_key_belongs_to_run_and_step(site: web.WebServer, configured: Configured) -> None:
    """Applying again repeats the key; another step of the run has its own."""
    for body in ("a", "a", "b"):
        send(configured(), url=site.url, body=body)
    keys = [asked.headers["Idempotency-Key"] for asked in site.requests]
    assert (True, True, True) == (keys[0] == keys[1], keys[0] != keys[2], keys[0].startswith(f"{contexts.RUN_ID}-"))


@pytest.mark.parametrize("label", ["..", ".", "a/../../admin", "%2e%2E", "x/..?y", "..%2Fadmin", "a%2f..%5Cb", "..;x"])
def test_no_label_chooses_another_path(site: web.WebServer, configured: Configured, label: str) -> None:
    """A path that would be resolved before it is sent is refused, however it is written."""
    with pytest.raises(ActionError, match=r"segment \. or \.\."):
        contexts.plan(configured(), ACTION, url=f"{site.url}/cache/{label}")
    assert [] == site.requests


def test_redirects_are_not_followed(site: web.WebServer, configured: Configured) -> None:
    """A server cannot send the request elsewhere."""
    site.status, site.headers = 302, {"Location": f"{site.url}/elsewhere"}
    assert "302" in error_of(configured(), url=site.url, method="GET").message
    assert 1 == len(site.requests)


@pytest.mark.parametrize(("status", "taken"), [(204, True), (409, True), (200, False)])
def test_the_expected_status_decides(site: web.WebServer, configured: Configured, status: int, taken: bool) -> None:
    """With `expect_status` nothing else is success."""
    site.status, site.body = status, b""
    given = {"url": site.url, "expect_status": [204, 409]}
    if taken:
        assert status == send(configured(), **given)["status"]
    else:
        assert Reason.ACTION_FAILED == error_of(configured(), **given).reason


@pytest.mark.parametrize(
    ("status", "given", "expected"),
    [
        (500, {"method": "POST"}, (PermanentError, Reason.ACTION_FAILED)),
        (500, {"method": "POST", "idempotent": True}, (TransientError, Reason.ACTION_FAILED)),
        (503, {"method": "PUT"}, (TransientError, Reason.ACTION_FAILED)),
        (429, {"method": "GET"}, (TransientError, Reason.ACTION_FAILED)),
        (403, {"method": "PUT"}, (PermanentError, Reason.FORBIDDEN)),
        (401, {"method": "POST"}, (PermanentError, Reason.FORBIDDEN)),
        (404, {"method": "DELETE"}, (PermanentError, Reason.ACTION_FAILED)),
    ],
)
def test_a_refusal_is_repeated_only_where_that_is_harmless(
    site: web.WebServer, configured: Configured, status: int, given: dict[str, Any], expected: tuple[type, Reason]
) -> None:
    """The status and the method decide between trying again and stopping."""
    site.status = status
    error = error_of(configured(), url=site.url, **given)
    assert expected == (type(error), error.reason)


def test_a_server_may_say_when_to_try_again(site: web.WebServer, configured: Configured) -> None:
    """Retry-After reaches the engine."""
    site.status, site.headers = 503, {"Retry-After": "7"}
    error = error_of(configured(), url=site.url, method="GET")
    assert 7.0 == (error.retry_after if isinstance(error, TransientError) else None)


@pytest.mark.parametrize(("method", "expected"), [("POST", OutcomeUnknownError), ("PUT", TransientError)])
def test_silence_after_sending(
    site: web.WebServer, configured: Configured, method: str, expected: type[ActionError]
) -> None:
    """Without an answer nobody knows, unless repeating is harmless."""
    site.answering.clear()
    error = error_of(configured(timeout="300ms"), url=site.url, method=method)
    assert (expected, 1) == (type(error), len(site.requests))


def test_a_refused_connection_can_be_tried_again(configured: Configured) -> None:
    """Nothing was sent."""
    error = error_of(configured(), url=f"http://127.0.0.1:{free_port()}/purge?key=correct-horse")
    assert (TransientError, Reason.TARGET_UNREACHABLE) == (type(error), error.reason)
    assert "correct-horse" not in error.message


def test_a_proxy_of_the_environment_is_not_used(
    site: web.WebServer, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would resolve the name again, behind the judgement of its addresses."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert 200 == send(configured(), url=site.url)["status"]


def test_an_unknown_host_is_not_found(configured: Configured) -> None:
    """A name that does not exist is found while planning."""
    with pytest.raises((PermanentError, TransientError), match="no-such-host"):
        contexts.plan(configured(), ACTION, url="http://no-such-host.invalid/")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "100.100.100.200",
    ],
)
def test_link_local_and_metadata_addresses_are_refused(configured: Configured, host: str) -> None:
    """However the address is written, planning refuses it."""
    with pytest.raises(PermanentError, match="never called") as caught:
        contexts.plan(configured(), ACTION, url=f"http://{host}/latest/meta-data")
    assert Reason.OUT_OF_SCOPE == caught.value.reason


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "file:///etc/passwd", "http://u:correct-horse@127.0.0.1/", "http://", "http://[::1", "/x"],
)
def test_only_plain_http_urls_are_called(configured: Configured, url: str) -> None:
    """Other schemes and URLs with a login are refused without repeating them."""
    with pytest.raises(PermanentError) as caught:
        contexts.plan(configured(), ACTION, url=url)
    assert "correct-horse" not in caught.value.message


@pytest.mark.parametrize(
    "given",
    [
        {"headers": {"Authorization": "x"}},
        {"headers": {"X-Api-Key": "x"}},
        {"headers": {"Private-Token": "x"}},
        {"headers": {"X-Any": "Bearer x"}},
        {"headers": {"Host": "elsewhere"}},
        {"headers": {"X-Any": "a\r\nX-Other: b"}},
        {"headers": {"X Any": "a"}},
        {"json": {}, "body": "x"},
        {"method": "GET", "body": "x"},
        {"method": "TRACE"},
    ],
)
def test_parameters_that_must_not_be_sent_are_refused(given: dict[str, Any]) -> None:
    """Credentials in parameters, header injection and two bodies are found when the catalog is loaded."""
    with pytest.raises(ValidationError):
        Request.Params.model_validate({"url": "http://127.0.0.1/", **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "PUT"}, True),
        ({"method": "PATCH"}, False),
        ({"method": "PATCH", "idempotent": True}, True),
        ({}, False),
    ],
)
def test_what_a_takeover_may_repeat(configured: Configured, given: dict[str, Any], expected: bool) -> None:
    """The method, or the author's word, decides whether a crash is answered by sending again."""
    assert expected == ACTION.can_repeat(contexts.plan(configured(), ACTION, url="http://127.0.0.1/", **given))


def test_the_result_keeps_the_beginning_of_the_answer(site: web.WebServer, configured: Configured) -> None:
    """A long or binary answer becomes at most 1 KiB of text without NUL."""
    site.body = b"\0" + b"a" * 5000
    body = send(configured(), url=site.url)["body"]
    assert (1024, False, "a") == (len(body), "\0" in body, body[-1])


def test_tls_verifies_the_name_and_not_the_address(
    configured: Configured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes to a judged address, the certificate must be for the host of the URL."""
    context = _certificate_for_localhost(tmp_path)
    with web.serve(context) as site:
        by_name = site.url.replace("127.0.0.1", "localhost")
        assert "certificate" in error_of(configured(), url=by_name, method="GET").message
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert 200 == send(configured(), url=by_name, method="GET")["status"]
        assert "certificate" in error_of(configured(), url=site.url, method="GET").message
    assert [f"localhost:{site.url.rpartition(':')[2]}"] == [asked.headers["Host"] for asked in site.requests]


def test_the_certificates_of_the_system_are_read_beside_everything_else(
    site: web.WebServer, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes tens of milliseconds, for which notifications would wait."""
    readers: list[threading.Thread] = []
    plain = ssl.create_default_context

    def read() -> ssl.SSLContext:
        readers.append(threading.current_thread())
        return plain()

    monkeypatch.setattr(ssl, "create_default_context", read)
    contexts.plan(configured(), ACTION, url=site.url)  # not left to what has a deadline
    assert (1, False) == (len(readers), threading.current_thread() in readers)


def _certificate_for_localhost(home: Path) -> ssl.SSLContext:
    command = [
        str(find("openssl")),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "1"]
    command += ["-keyout", str(home / "key.pem"), "-out", str(home / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "cert.pem", home / "key.pem")
    return context


def test_the_address_that_was_judged_is_the_one_that_is_called(
    site: web.WebServer, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that begins to point to a metadata service is refused; within one request it is asked for once."""
    look_up, answers = socket.getaddrinfo, ["127.0.0.1", "127.0.0.1", "169.254.169.254"]

    def rebound(host: str, *args: Any, **options: Any) -> Any:
        return look_up(answers.pop(0) if host == "rebound.example" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    url = f"http://rebound.example:{site.url.rpartition(':')[2]}/"
    assert 200 == send(configured(), url=url)["status"]
    with pytest.raises(PermanentError, match="never called"):
        contexts.plan(configured(), ACTION, url=url)
    assert [[], 1] == [answers, len(site.requests)]
