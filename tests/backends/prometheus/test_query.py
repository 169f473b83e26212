"""prometheus.query against a real Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.backends.connections import Connections
from app.backends.prometheus.checks.query import Query
from app.catalog.templates import TemplateContext, render_params
from app.domain.errors import CheckError
from app.domain.reasons import Reason
from app.domain.redaction import redact
from app.domain.states import RunState
from app.domain.texts import kinds_of
from tests.conftest import StartPrometheus
from tests.support import contexts, prometheus, web
from tests.support.aio import run
from tests.support.engine import Engine, engine, sqlite
from tests.support.entries import poke
from tests.support.processes import free_port


def to_prometheus(url: str, **fields: Any) -> Connections:
    """A configuration that asks this Prometheus."""
    return Connections.model_validate({"prometheus": {"default": {"url": url, **fields}}, "timeout": "10s"})


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


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"[" * 100_000, b'{"status": "success"}', b'{"status": "success", "data": {}}']
)
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
    assert "Prometheus answered 200 with something" in caught.value.message


def test_a_prometheus_that_reaches_only_a_part_is_no_observation(start_prometheus: StartPrometheus) -> None:
    """Where a remote storage does not answer, Prometheus gives what it has itself, with a warning."""
    url = f"http://127.0.0.1:{free_port()}/read"
    server = start_prometheus(f'remote_read: [{{url: "{url}", read_recent: true}}]\n')
    with pytest.raises(CheckError, match=r"partial.*remote_read"):
        contexts.observe(to_prometheus(server.url), Query(), query="count(up == 0) or vector(0)", op="==", value=0)


def answered(answer: dict[str, Any], kind: str = "application/json; charset=utf-8", status: int = 200) -> Any:
    """What the check makes of an answer that no real Prometheus gives."""
    with web.serve() as site:
        site.body, site.headers, site.status = json.dumps(answer).encode(), {"Content-Type": kind}, status
        return contexts.observe(to_prometheus(site.url), Query(), query="up", op="==", value=0, empty="hold")


ZERO = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1.5, "0"]}]}}
EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}


@pytest.mark.parametrize("more", [{}, {"infos": ["PromQL info: ..."]}, {"warnings": []}, {"isPartial": False}])
def test_a_whole_answer_counts(more: dict[str, Any]) -> None:
    """Hints for the author of the expression take nothing away."""
    assert answered(ZERO | more).held
    assert answered(EMPTY | more).held


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"warnings": ["No StoreAPIs matched for this query", "store-2: timeout"]}, "store-2: timeout"),
        ({"warnings": "store-2: timeout"}, "store-2: timeout"),
        ({"warnings": ["x"], "infos": ["y"]}, "x"),
        ({"isPartial": True}, "isPartial"),
        ({"isPartial": "true"}, "isPartial"),
    ],
)
@pytest.mark.parametrize("answer", [ZERO, EMPTY])
def test_a_partial_answer_is_no_observation(answer: dict[str, Any], more: dict[str, Any], told: str) -> None:
    """Thanos says it by warnings, VictoriaMetrics by a field; the missing series could be those that matter."""
    with pytest.raises(CheckError, match=f"partial, so it proves nothing: .*{told}"):
        answered(answer | more)


@pytest.mark.parametrize("where", ["when", "verify"])
def test_nothing_follows_from_a_partial_answer(tmp_path: Path, where: str) -> None:
    """Before the steps it keeps the run from acting, after them it verifies nothing."""
    check = {"check": "prometheus.query", "with": {"query": "up", "op": "==", "value": 0}, "timeout": "1s"}

    async def scenario(one: Engine, sink: web.WebServer) -> None:
        await one.fire()
        (row,) = await one.ended(count=1)
        assert (RunState.FAILED, Reason.CHECK_UNOBSERVABLE) == (row.state, row.reason)
        assert "isPartial" in row.message
        assert (0 if where == "when" else 1) == len(sink.requests)

    async def body(sink: web.WebServer, connections: Connections) -> None:
        entry = poke(sink, **{where: [check]})
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections) as one:
            await scenario(one, sink)

    with web.serve() as sink, web.serve() as site:
        site.body = json.dumps(ZERO | {"isPartial": True}).encode()
        run(body(sink, to_prometheus(site.url)))


@pytest.mark.parametrize(
    "result",
    [
        [{"metric": {}, "value": [1.5, "none"]}],
        [{"metric": {}, "value": [1.5]}],
        [{"metric": {}}],
        [{"metric": {}, "value": [1.5, None]}],
        [5],
        None,
        {},
    ],
)
def test_samples_that_are_none_are_no_observation(result: Any) -> None:
    """A part that is not understood is not taken for absent."""
    with pytest.raises(CheckError, match="does not send"):
        answered({"status": "success", "data": {"resultType": "vector", "result": result}})


def test_native_histograms_are_no_observation() -> None:
    """They are no numbers to compare."""
    element = {"metric": {}, "histogram": [1.5, {"count": "1", "sum": "1"}]}
    with pytest.raises(CheckError, match="native histograms"):
        answered({"status": "success", "data": {"resultType": "vector", "result": [element]}})


@pytest.mark.parametrize(
    ("kind", "status", "told"),
    [
        ("text/html", 200, "does not send"),
        ("application/json", 206, "does not send|answered 206"),
        ("application/json", 302, "redirects are not followed"),
        ("application/json", 404, "no such API"),
        ("application/json", 502, "answered 502"),
        ("text/plain", 401, "did not accept the credentials"),
    ],
)
def test_the_status_and_the_kind_of_an_answer_count(kind: str, status: int, told: str) -> None:
    """What does not come as the API's answer is none, whatever it says."""
    with pytest.raises(CheckError, match=told):
        answered(ZERO, kind, status)


def test_a_tenant_can_be_named(tmp_path: Path) -> None:
    """Headers of one's own go with each query, those from files as the file is then."""
    secret = tmp_path / "key"
    headers = {"X-Scope-OrgID": "shop|team-a", "X-Api-Key": {"file": str(secret)}}
    with web.serve() as site:
        site.body = json.dumps(ZERO).encode()
        for key in ("first", "second"):
            secret.write_text(f"{key}\n")
            contexts.observe(to_prometheus(site.url, headers=headers), Query(), query="up")
            sent = site.requests[-1].headers
            assert ("shop|team-a", key) == (sent["X-Scope-OrgID"], sent["X-Api-Key"])
            assert "no-store" in sent["Cache-Control"]


def test_a_tenant_is_no_secret_and_a_key_is_one() -> None:
    """A tenant may be called as a namespace is, which must stay readable in everything that people see."""
    headers = {"X-Scope-OrgID": "storefront", "X-Api-Key": "c0rrect-horse", "X-Auth": {"value": "b4ttery-staple"}}
    to_prometheus("http://p", headers=headers)
    said = "Deployment storefront/api: c0rrect-horse b4ttery-staple"
    assert "Deployment storefront/api: [hidden] [hidden]" == redact(said)


def test_what_the_server_says_of_a_refusal_is_passed_on() -> None:
    """Without a tenant Mimir does not ask for credentials."""
    with web.serve() as site:
        site.status, site.body, site.headers = 401, b"no org id\n", {"Content-Type": "text/plain"}
        with pytest.raises(CheckError, match=r"did not accept the credentials \(401\): no org id"):
            contexts.observe(to_prometheus(site.url), Query(), query="up")


@pytest.mark.parametrize("given", [{"op": "<"}, {"value": 1}, {"empty": "hold"}, {"op": "~", "value": 1}])
def test_a_comparison_has_both_sides(given: dict[str, Any]) -> None:
    """Parameters that mean nothing, or that always hold, are refused when the catalog is loaded."""
    with pytest.raises(ValidationError):
        Query.Params.model_validate({"query": "up", **given})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
        st.text(alphabet="\"'`\\{}[]()*?^-|.+$#\n\r\t =~!,0a_\ufffd\u2028\x7f", min_size=1, max_size=9),
    ),
    quote=st.sampled_from("\"'"),
)
@example(value='x"} or vector(0) #', quote='"')
def test_a_label_is_a_value_to_prometheus(connections: Connections, value: str, quote: str) -> None:
    """Prometheus reads the label exactly; as a regular expression it matches the label and nothing else."""
    alert = TemplateContext(labels={"x": value}, annotations={}, fingerprint="0", starts_at=datetime.now(UTC))
    of = quote.join(("", "{{ labels.x }}", ""))
    for matcher, labels in ((f"job={of}", {"job": value}), (f'job="{value.encode().hex()}", a=~{of}', None)):
        template = {"query": f"absent(up{{{matcher}}})"}
        query = render_params(template, alert, kinds_of(Query.Params))["query"]
        seen = contexts.observe(connections, Query(), query=query)
        assert ({"job": value.encode().hex()} if labels is None else labels) == seen.data["shown"][0]["labels"]
