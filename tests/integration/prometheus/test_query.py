"""prometheus.query against a real Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from app.checks.prometheus.query import Query
from app.clients.connections import Connections
from app.domain.errors import CheckError
from tests.support import contexts, prometheus, web
from tests.support.processes import free_port


def to_prometheus(url: str, **fields: Any) -> Connections:
    """A configuration that asks this Prometheus."""
    return Connections.model_validate({"prometheus": {"url": url, **fields}, "timeout": "10s"})


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connections]:
    """A Prometheus that scrapes nothing: expressions make their own samples."""
    with prometheus.serve(tmp_path_factory.mktemp("prometheus"), "global: {}\n") as server:
        yield to_prometheus(f"{server.url}/")


BOTH = 'label_replace(vector(1), "a", "b", "", "") or vector(3)'


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ({"query": "vector(1)"}, True),
        ({"query": "vector(1) > 2"}, False),
        ({"query": "vector(0.04)", "op": "<", "value": 0.05}, True),
        ({"query": "vector(0.05)", "op": "<", "value": 0.05}, False),
        ({"query": "1 + 1", "op": "==", "value": 2}, True),
        ({"query": BOTH, "op": "<", "value": 4}, True),
        ({"query": BOTH, "op": "<", "value": 2}, False),
        ({"query": "vector(1) > 2", "op": "<", "value": 9}, False),
        ({"query": "vector(1) > 2", "op": "<", "value": 9, "empty": "hold"}, True),
        ({"query": "vector(0) / 0"}, False),
        ({"query": "vector(0) / 0", "op": "!=", "value": 1}, False),
        ({"query": "vector(1) / 0", "op": ">", "value": 1}, True),
    ],
)
def test_every_sample_must_compare(connections: Connections, given: dict[str, Any], held: bool) -> None:
    """Holds for samples that all compare; NaN and, unless asked for, an empty result do not."""
    assert held == contexts.observe(connections, Query(), **given).held


def test_the_observation_shows_what_failed(connections: Connections) -> None:
    """A person sees which sample did not compare."""
    observation = contexts.observe(connections, Query(), query=BOTH, op="<", value=2)
    assert ([{"labels": {}, "value": "3.0"}], 2) == (observation.data["shown"], observation.data["samples"])


@pytest.mark.parametrize("query", ["sum(", "up[5m]", '"text"'])
def test_an_expression_without_an_answer_is_no_observation(connections: Connections, query: str) -> None:
    """Syntax errors and results that are no samples are errors, not empty results."""
    with pytest.raises(CheckError):
        contexts.observe(connections, Query(), query=query)


def test_a_prometheus_that_is_away_is_no_observation() -> None:
    """Not being able to ask is an error of its own."""
    with pytest.raises(CheckError, match="cannot connect"):
        contexts.observe(to_prometheus(f"http://127.0.0.1:{free_port()}"), Query(), query="up")


def test_without_a_prometheus_there_is_no_observation() -> None:
    """The message names the setting that is missing."""
    with pytest.raises(CheckError, match=r"connections\.prometheus"):
        contexts.observe(Connections(), Query(), query="up")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "success"}', b'{"status": "success", "data": {}}'])
def test_an_answer_that_is_not_prometheus_is_no_observation(body: bytes) -> None:
    """A proxy's page is not an empty result; the token was sent and is not shown."""
    with web.serve() as site:
        site.body = body
        with pytest.raises(CheckError) as caught:
            contexts.observe(
                to_prometheus(site.url, bearer_token={"value": "correct-horse"}), Query(), query="up", empty="fail"
            )
    assert "Bearer correct-horse" == site.requests[0].headers["Authorization"]
    assert "correct-horse" not in caught.value.message


@pytest.mark.parametrize("given", [{"op": "<"}, {"value": 1}, {"empty": "hold"}, {"op": "~", "value": 1}])
def test_a_comparison_has_both_sides(given: dict[str, Any]) -> None:
    """Parameters that mean nothing, or that always hold, are refused when the catalog is loaded."""
    with pytest.raises(ValidationError):
        Query.Params.model_validate({"query": "up", **given})
