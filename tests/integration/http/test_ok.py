"""http.ok against a real server, and alert.resolved, which asks nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.checks.alert.resolved import Resolved
from app.checks.http.ok import Ok
from app.clients.connections import Connections
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
