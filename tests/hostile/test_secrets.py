"""A secret of each kind is planted, everything that can go wrong goes wrong, and all that was written is searched."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.acceptance.bench import EVERYWHERE, remediation, write_yaml
from tests.acceptance.test_cli import remediator
from tests.support.alerts import alert, notification
from tests.support.engine import Clock
from tests.support.processes import free_port, wait_until
from tests.support.service import Service, ServiceOptions, serve
from tests.support.web import Asked
from tests.support.web import serve as web

PLANTED = "Sup3r-S3cret-{}!"
KINDS = ["token", "postgres", "redis", "notify", "bearer", "audit", "prometheus", "alertmanager", "header", "own"]
SECRETS = {kind: PLANTED.format(kind) for kind in KINDS}


def configuration(home: Path) -> Path:
    """Every secret that a configuration can hold, for servers that are not there."""
    port = free_port()
    files = {}
    for kind, secret in SECRETS.items():
        files[kind] = home / f"secret-{kind}"
        files[kind].write_text(secret)
    postgres = f"postgresql://user:{quote(SECRETS['postgres'])}@127.0.0.1:{port}/shop"
    connections: dict[str, Any] = {
        "timeout": "1s",
        "postgres": {"main": {"url": {"value": postgres}}},
        "redis": {"cache": {"url": {"value": f"redis://:{quote(SECRETS['redis'])}@127.0.0.1:{port}"}}},
        "notify": {"people": {"urls": [{"value": f"json://user:{quote(SECRETS['notify'])}@127.0.0.1:{port}/hook"}]}},
        "secrets": {"api": {"file": str(files["bearer"])}},
        "prometheus": {
            "default": {"url": f"http://127.0.0.1:{port}", "bearer_token": {"file": str(files["prometheus"])}}
        },
        "http": {"127.0.0.1": {"headers": {"X-Own": {"value": SECRETS["own"]}}}},
        "alertmanager": {
            "default": {
                "urls": [f"http://127.0.0.1:{port}"],
                "bearer_token": {"file": str(files["alertmanager"])},
                "headers": {"X-Proxy": {"file": str(files["header"])}},
            }
        },
    }
    return write_yaml(
        home / "config.yaml",
        {
            "connections": connections,
            "scope": EVERYWHERE,
            "recheck": "300ms",
            "channel": "people",
            "log": {"level": "debug", "format": "json"},
            "audit": {"key": {"file": str(files["audit"])}},
            "auth": {"tokens": [{"name": "all", "role": "admin", "file": str(files["token"])}]},
        },
    )


def entries() -> list[dict[str, Any]]:
    """Something that needs each connection, and fails at it."""
    bearer = {"url": "http://127.0.0.1:1/{{ labels.x }}", "bearer_token": "api"}
    off = {"without_guards": {"fresh": "Alertmanager is away, and the others are to fail at their own"}}
    return [
        remediation("idle", {"action": "postgres.terminate_idle", "with": {"idle_longer_than": "0s"}})
        | {"target": {"postgres": {"instance": "main"}}}
        | off,
        remediation("flush", {"action": "redis.flush"}, target={"redis": {"instance": "cache"}}, allow_destructive=True)
        | off,
        remediation("ask", {"action": "http.request", "with": bearer, "timeout": "1s"}) | off,
        remediation("tell", _tell()) | off,
        remediation("query", _tell(), when=[_query()]) | off,
        remediation("fresh", _tell()),
        remediation("approve", _tell(), mode="approve") | off,
    ]


def _tell() -> dict[str, Any]:
    return {"action": "notify.send", "with": {"channel": "people", "title": "t", "body": "b"}, "timeout": "1s"}


def _query() -> dict[str, Any]:
    return {"check": "prometheus.query", "with": {"query": "up", "op": ">", "value": 0}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service for which everything goes wrong."""
    catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": entries()})
    options = ServiceOptions(data=tmp_path / "data", catalog=[catalog], config=configuration(tmp_path))
    with serve(tmp_path, options) as running:
        yield running


def test_no_secret_gets_out(service: Service, tmp_path: Path) -> None:
    """Into the store, a log, an answer, a metric or what the command line prints."""
    token = {"authorization": f"Bearer {SECRETS['token']}"}
    names = [entry["name"] for entry in entries()]
    body = notification(*(alert(alertname=name, x="y", starts_at=Clock()()) for name in names))
    json_body = {"content-type": "application/json"} | token
    assert 202 == service.post("/webhooks/alertmanager", content=body, headers=json_body).status_code

    def decided() -> bool:
        items = service.get("/remediations", headers=token).json()["items"]
        return len(items) == len(names) and all(item["reason"] for item in items)

    wait_until(decided, 60, "every run to meet its failure")
    written = {"log": service.logs}
    for path in _paths(service, token):
        written[path] = service.get(path, headers=token).text
    wrong = base64.b64encode(f"x:{SECRETS['token']}x".encode()).decode()
    written["refused"] = service.get("/remediations", headers={"authorization": f"Basic {wrong}"}).text
    config, catalog = tmp_path / "config.yaml", tmp_path / "catalog.yaml"
    for words in (["check"], ["check", "--live"], ["check", "--live", "--json"], ["plan", "--alert", "-"]):
        stdin = json.dumps({"labels": {"alertname": "idle", "x": "y"}})
        done = remediator(*words, "--config", config, "--catalog", catalog, "--data", tmp_path / "data", stdin=stdin)
        written[" ".join(words)] = done.stdout + done.stderr
    service.stop()
    for file in sorted((tmp_path / "data").iterdir()):
        written[file.name] = file.read_bytes().decode("latin-1")
    found = [
        (where, kind)
        for where, text in written.items()
        for kind, secret in SECRETS.items()
        if secret in text or quote(secret) in text or base64.b64encode(secret.encode()).decode() in text
    ]
    assert [] == found
    assert "idle" in written["/remediations?limit=100"]
    assert any(name.endswith(".db") for name in written)


def _paths(service: Service, token: dict[str, str]) -> list[str]:
    runs = service.get("/remediations", headers=token).json()["items"]
    paths = ["/remediations?limit=100", "/episodes", "/catalog", "/events", "/metrics", "/-/ready", "/pause"]
    paths += [f"/remediations/{run['id']}" for run in runs]
    return paths + [f"/catalog/{entry['name']}" for entry in entries()]


def _echoed(asked: Asked) -> bytes:
    """Everything that was sent, as debugging pages, gateways and stack traces repeat it."""
    headers = "\n".join(f"{name}: {value}" for name, value in asked.headers.items())
    encoded = [base64.b64encode(headers.encode()).decode(), quote(headers), json.dumps({"headers": headers})]
    return "\n".join([headers, *encoded]).encode()


def _leaks(written: dict[str, str], secrets: list[str]) -> list[tuple[str, str]]:
    """Where a secret, or a large part of one in any of its forms, is found."""
    forms = {form for one in secrets for form in (one[4:-1], quote(one, safe=""), json.dumps(one)[1:-1])}
    forms |= {base64.b64encode(b"x" * before + one.encode())[4:-4].decode() for one in secrets for before in range(3)}
    return [(where, form) for where, text in written.items() for form in forms if form in text]


def test_a_target_that_repeats_its_request_shows_no_secret(tmp_path: Path) -> None:
    """In results, errors and observations, for the one that was sent and for the one before; in API, log and store."""
    secrets = ['Sup3r/S3cret "of" the+hook & 1!', "N3w-one/of the=hook% \\2!"]
    file = tmp_path / "secret"
    with web() as well, web() as broken:
        well.echo = broken.echo = _echoed
        broken.status = 400
        asks = [{"action": "http.request", "with": {"url": one.url, "bearer_token": "api"}} for one in (well, broken)]
        looks = {"check": "http.ok", "with": {"url": broken.url, "bearer_token": "api", "contains": "x"}}
        queries = {"check": "prometheus.query", "with": {"query": "up"}, "timeout": "1s"}
        given = [
            remediation("well", asks[0], verify=[queries]),
            remediation("broken", asks[1]),
            remediation("looks", asks[0], verify=[looks | {"timeout": "1s"}]),
        ]
        config = {
            "connections": {
                "secrets": {"api": {"file": str(file)}},
                "prometheus": {"default": {"url": well.url, "headers": {"X-Scope-OrgID": {"value": secrets[0]}}}},
            },
            "scope": EVERYWHERE,
            "log": {"level": "debug", "format": "json"},
        }
        catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": given})
        options = ServiceOptions(tmp_path / "data", None, [catalog], write_yaml(tmp_path / "config.yaml", config))
        with serve(tmp_path, options) as running:
            for number, secret in enumerate(secrets):
                file.write_text(secret)
                names = [one["name"] for one in given]
                body = notification(*(alert(alertname=name, x=str(number), starts_at=Clock()()) for name in names))
                running.post("/webhooks/alertmanager", content=body, headers={"content-type": "application/json"})
                wait_until(lambda count=3 * (number + 1): len(_ended(running)) == count, 30, "every run to end")
            written = {path: running.get(path).text for path in ("/remediations", "/events")}
            written |= {run: running.get(f"/remediations/{run}").text for run in _ended(running)}
            written["log"] = running.logs
    for path in sorted((tmp_path / "data").iterdir()):
        written[path.name] = path.read_bytes().decode("latin-1")
    assert f"Bearer {secrets[1]}" in [asked.headers.get("Authorization") for asked in well.requests]
    assert [] == _leaks(written, secrets)
    assert "[hidden]" in "".join(text for where, text in written.items() if where != "log")


def _ended(service: Service) -> list[str]:
    runs = service.get("/remediations").json()["items"]
    return [run["id"] for run in runs if run["state"] in {"succeeded", "failed"}]


@pytest.mark.parametrize(
    "broken",
    [
        {"auth": {"tokens": [{"name": "x", "role": "nobody", "value": SECRETS["token"]}]}},
        {"connections": {"postgres": {"main": {"url": SECRETS["postgres"]}}}},
        {"connections": {"redis": {"main": {"url": {"value": SECRETS["redis"], "file": "x"}}}}},
        {"audit": {"key": SECRETS["audit"]}},
        {"store": f"mysql://user:{SECRETS['postgres']}@db/x"},
        {"store": f"postgresql://user:{SECRETS['postgres']}@127.0.0.1:1/x"},
    ],
)
def test_a_broken_configuration_does_not_repeat_a_secret(broken: dict[str, Any], tmp_path: Path) -> None:
    """The message says where and what is wrong, and not what was written there."""
    config = write_yaml(tmp_path / "config.yaml", broken)
    (tmp_path / "remediations").mkdir()
    for command in (["check"], ["migrate"], ["audit", "verify"]):
        done = remediator(*command, "--config", config, "--catalog", tmp_path / "remediations")
        assert not [kind for kind, secret in SECRETS.items() if secret in done.stdout + done.stderr]


def test_an_unknown_variable_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would change nothing, and nobody would know."""
    monkeypatch.setenv("REMEDIATOR_RETENSION", "30d")
    done = remediator("check", "--data", tmp_path)
    assert (2, True) == (done.returncode, 'unknown setting "retension"; did you mean "retention"?' in done.stderr)


@pytest.mark.parametrize("variable", ["REMEDIATOR_PORT", "REMEDIATOR_PORT_8080_TCP_ADDR", "REMEDIATOR_DB_SERVICE_HOST"])
def test_a_variable_that_kubernetes_sets_says_so(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes manifests by hand and names the Service remediator meets it at the first start."""
    monkeypatch.setenv(variable, "tcp://10.0.0.1:8080")
    done = remediator("check", "--data", tmp_path)
    assert (2, True) == (done.returncode, "enableServiceLinks: false" in done.stderr)
