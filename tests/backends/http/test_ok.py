"""http.ok against a real server, and alert.resolved, which asks nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from app.backends.alertmanager.checks.resolved import Resolved
from app.backends.connections import Connections
from app.backends.http.checks.ok import Ok
from app.domain.errors import CheckError
from tests.support import contexts, web
from tests.support.processes import free_port

Configured = Callable[..., Connections]


@pytest.mark.parametrize(
    ("status", "given", "held"),
    [
        (200, {}, True),
        (204, {}, True),
        (302, {}, False),
        (404, {}, False),
        (500, {}, False),
        (401, {"expect_status": [401]}, True),
        (200, {"expect_status": [401]}, False),
        (200, {"contains": "ready"}, True),
        (200, {"contains": "absent"}, False),
    ],
)
def test_status_and_body_decide(
    site: web.WebServer, configured: Configured, status: int, given: dict[str, Any], held: bool
) -> None:
    """Any answer is an observation."""
    site.status, site.body = status, b"" if status == 204 else b"ready to serve"
    assert held == contexts.observe(configured(), Ok(), url=f"{site.url}/health", **given).held


def test_the_bearer_token_is_sent(site: web.WebServer, configured: Configured) -> None:
    """A named secret opens what is not public, and stays out of the observation."""
    observation = contexts.observe(configured(), Ok(), url=site.url, bearer_token="api")
    assert "Bearer correct-horse" == site.requests[0].headers["Authorization"]
    assert "correct-horse" not in observation.model_dump_json()


def test_a_hosts_own_headers_are_sent_to_it_alone(site: web.WebServer, configured: Configured) -> None:
    """What a proxy in front asks for stands in the configuration, where no catalog can send it elsewhere."""
    port = site.url.rpartition(":")[2]
    own = {
        f"127.0.0.1:{port}": {"headers": {"X-Api-Key": "of-the-port"}},
        "127.0.0.1": {"headers": {"X-Api-Key": "no"}},
    }
    contexts.observe(configured(http=own), Ok(), url=site.url)
    contexts.observe(configured(http={"127.0.0.1": {"headers": {"x-a": "b", "x-c": "d"}}}), Ok(), url=site.url)
    contexts.observe(configured(http={"elsewhere.test": {"headers": {"X-Api-Key": "no"}}}), Ok(), url=site.url)
    sent = [{name.lower(): value for name, value in asked.headers.items()} for asked in site.requests]
    assert ["of-the-port", None, None] == [one.get("x-api-key") for one in sent]
    assert ("b", "d") == (sent[1]["x-a"], sent[1]["x-c"])


def test_a_hosts_own_query_is_sent(site: web.WebServer, configured: Configured) -> None:
    """The message names no query."""
    connections = configured(http={"127.0.0.1": {"query": {"token": "correct-horse"}}})
    seen = contexts.observe(connections, Ok(), url=f"{site.url}/health")
    assert ("/health?token=correct-horse", True) == (site.requests[0].path, seen.held)
    assert "correct-horse" not in seen.model_dump_json()


def test_authorization_is_given_once(site: web.WebServer, configured: Configured) -> None:
    """Which of two credentials counts should not be guessed."""
    connections = configured(http={"127.0.0.1": {"headers": {"Authorization": "Basic eDp5"}}})
    with pytest.raises(CheckError, match="given twice"):
        contexts.observe(connections, Ok(), url=site.url, bearer_token="api")
    assert [] == site.requests


@pytest.mark.parametrize(
    "headers",
    [
        {"X Y": "a"},
        {"X-Y": ""},
        {"X-Y": "a\nb"},
        {"X-Y": "é"},
        {"Host": "a"},
        {"Content-Length": "1"},
        {"X-Y": "a", "x-y": "b"},
        {"X-Y": {}},
        {"X-Y": {"value": "a", "file": "/b"}},
        {"X-Y": 5},
    ],
)
@pytest.mark.parametrize("section", ["prometheus", "alertmanager", "http"])
def test_headers_that_cannot_be_sent_are_refused(section: str, headers: dict[str, Any]) -> None:
    """When the configuration is read, and without their values."""
    sections = {
        "prometheus": {"default": {"url": "http://p", "headers": headers}},
        "alertmanager": {"default": {"urls": ["http://a"], "headers": headers}},
        "http": {"shop.test": {"headers": headers}},
    }
    with pytest.raises(ValidationError):
        Connections.model_validate({section: sections[section]})


@pytest.mark.parametrize("host", ["http://shop.test", "Shop.test", "shop.test/x", "*.test", "::1"])
def test_headers_belong_to_one_host(host: str) -> None:
    """Written as the host of a URL is, with or without its port."""
    with pytest.raises(ValidationError, match="is no host"):
        Connections.model_validate({"http": {host: {"headers": {"X-Y": "a"}}}})


def test_a_proxy_of_the_environment_is_said_not_to_be_used(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses are judged before they are called, which a proxy would do elsewhere."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    seen = contexts.observe(configured(), Ok(), url=f"http://127.0.0.1:{free_port()}")
    assert "the proxy of HTTP_PROXY is not used" in seen.message


def test_a_refused_connection_is_observed(configured: Configured) -> None:
    """A service that does not listen is seen not to be well."""
    observation = contexts.observe(configured(), Ok(), url=f"http://127.0.0.1:{free_port()}/")
    assert (False, True) == (observation.held, "cannot connect" in observation.message)


def test_silence_is_observed(site: web.WebServer, configured: Configured) -> None:
    """A service that does not answer in time is seen not to be well."""
    site.answering.clear()
    assert not contexts.observe(configured(timeout="300ms"), Ok(), url=site.url).held


@pytest.mark.parametrize(
    "given", [{"url": "http://169.254.169.254/"}, {"url": "ftp://127.0.0.1/"}, {"bearer_token": "nope"}]
)
def test_what_must_not_be_asked_is_no_observation(
    site: web.WebServer, configured: Configured, given: dict[str, Any]
) -> None:
    """A refused address or a missing secret says nothing about the service."""
    with pytest.raises(CheckError):
        contexts.observe(configured(), Ok(), **{"url": site.url, **given})


@pytest.mark.parametrize("firing", [True, False])
def test_alert_resolved_follows_the_episodes(configured: Configured, firing: bool) -> None:
    """The check holds once no episode of the run is open."""
    assert (not firing) == contexts.observe(configured(), Resolved(), firing=firing).held
