"""The running catalog, its reload, and what supervisors and Prometheus ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.domain.states import RunState
from app.store.audit.chain import SERVICE
from app.store.db import pace
from app.store.db.database import Database
from app.store.queries import search
from tests.support.edge import TOKENS, Edge, StartEdge, bearer


def test_the_catalog_is_shown_with_its_digest_and_sources(edge: Edge) -> None:
    """Mode and matchers as they are written."""
    shown = edge.get("/catalog").json()
    assert [
        {
            "name": "restart-api",
            "summary": "Restart the API.",
            "mode": "observe",
            "matchers": ['alertname="Down"'],
            "source": f"{edge.catalog_file}:2",
            "record": {
                "runs": 0,
                "success_rate": None,
                "effectiveness": None,
                "breaker": "closed",
                "earned": None,
                "paused": False,
            },
            "preflight": None,
        }
    ] == shown["items"]
    assert (edge.services.catalog.current.digest, None) == (shown["digest"], shown["last_reload_error"])


def test_freezes_are_shown_with_whether_they_hold(edge: Edge) -> None:
    """And until when."""
    text = edge.catalog_file.read_text(encoding="utf-8")
    edge.catalog_file.write_text(
        "freezes:\n"
        '  - {name: move, summary: We move., begins: "2026-03-01T00:00:00Z", ends: "2026-03-02T00:00:00Z"}\n'
        "  - {name: night, summary: Nobody is there., times: [{start_time: '22:00', end_time: '24:00'}]}\n" + text,
        encoding="utf-8",
    )
    edge.post("/-/reload")
    move, night = edge.get("/catalog").json()["freezes"]
    assert {
        "name": "move",
        "summary": "We move.",
        "remediations": ["*"],
        "when": "from 2026-03-01T00:00:00+00:00; to 2026-03-02T00:00:00+00:00",
        "holds": True,
        "until": "2026-03-02T00:00:00Z",
    } == move
    assert ("22:00-24:00; UTC", False, None) == (night["when"], night["holds"], night["until"])


def test_one_remediation_is_shown_with_its_defaults(edge: Edge) -> None:
    """As every run keeps it too."""
    shown = edge.get("/catalog/restart-api").json()
    assert "10m" == shown["specification"]["limits"]["cooldown"]


def test_an_unknown_remediation_names_the_nearest(edge: Edge) -> None:
    """404."""
    response = edge.get("/catalog/restart-apis")
    assert (404, "there is no remediation 'restart-apis'; did you mean \"restart-api\"?") == (
        response.status_code,
        response.json()["detail"],
    )


def test_a_reload_swaps_the_catalog(edge: Edge) -> None:
    """The answer has the new digest."""
    text = edge.catalog_file.read_text(encoding="utf-8")
    edge.catalog_file.write_text(text.replace("restart-api", "restart-web"), encoding="utf-8")
    answer = edge.post("/-/reload").json()
    assert (1, answer["digest"]) == (answer["remediations"], edge.get("/catalog").json()["digest"])
    assert 200 == edge.get("/catalog/restart-web").status_code


def test_a_wrong_catalog_is_refused_with_every_problem(edge: Edge) -> None:
    """The running one stays, and says until it is mended why the files were refused."""
    before = edge.services.catalog.current.digest
    good = edge.catalog_file.read_text(encoding="utf-8")
    edge.catalog_file.write_text(good.replace("summary", "sumary").replace("matchers:", "machers:"), encoding="utf-8")
    response = edge.post("/-/reload")
    assert (422, "catalog_invalid") == (response.status_code, response.json()["reason"])
    problems = response.json()["errors"]
    assert len(problems) >= 2
    assert all(problem.startswith(f"{edge.catalog_file}:") for problem in problems)
    shown = edge.get("/catalog").json()
    assert (before, problems) == (shown["digest"], shown["last_reload_error"])
    edge.catalog_file.write_text(good, encoding="utf-8")
    edge.post("/-/reload")
    assert edge.get("/catalog").json()["last_reload_error"] is None


def test_a_reload_is_audited_with_who_asked_for_it(start_edge: StartEdge) -> None:
    """Whether the files were accepted, and which catalog runs then."""
    edge = start_edge(tokens=TOKENS)
    digest = edge.services.catalog.current.digest
    edge.post("/-/reload", headers=bearer("secret-of-admin"))
    edge.catalog_file.write_text("remediations: 1", encoding="utf-8")
    edge.post("/-/reload", headers=bearer("secret-of-admin"))

    async def read() -> list[tuple[str, str, Any]]:
        async with edge.database.read() as tx:
            return [(row.kind, row.actor, row.data) for row in await search.events(tx, SERVICE)]

    assert [
        ("reloaded", "the-admin", {"digest": digest, "result": "accepted"}),
        ("reloaded", "the-admin", {"digest": digest, "result": "refused"}),
    ] == edge.run(read())


def test_a_reload_while_the_store_is_away_is_done(start_edge: StartEdge, tmp_path: Path) -> None:
    """Only the audit lacks it."""
    edge = start_edge(database=Database(f"sqlite:///{tmp_path}/empty.db"))
    assert 200 == edge.post("/-/reload").status_code


def test_the_process_says_that_it_is_alive(edge: Edge) -> None:
    """Whatever else is wrong."""
    edge.problems = ["the store is not available"]
    assert (200, "ok\n") == (edge.get("/-/healthy").status_code, edge.get("/-/healthy").text)


def test_readiness_names_what_is_missing(edge: Edge) -> None:
    """All of it."""
    assert (200, "ready\n") == (edge.get("/-/ready").status_code, edge.get("/-/ready").text)
    edge.problems = ["the store is not available", "take-in has stopped"]
    response = edge.get("/-/ready")
    assert (503, "not_ready", edge.problems) == (
        response.status_code,
        response.json()["reason"],
        response.json()["errors"],
    )


def test_metrics_count_what_the_store_holds(edge: Edge) -> None:
    """At the time of the scrape."""
    edge.add_run(RunState.DEFERRED)
    edge.notify(b'{"version":"4","receiver":"r","status":"firing","alerts":[]}')
    response = edge.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = response.text.splitlines()
    assert 'remediator_active_runs{state="deferred"} 1.0' in lines
    assert 'remediator_active_runs{state="running"} 0.0' in lines
    assert "remediator_inbox_notifications 1.0" in lines


def test_a_long_scrape_lets_others_on(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two pieces of it the loop looks for whoever else has something to do."""
    monkeypatch.setattr(pace, "_ANSWER_SECONDS", 0.0)
    rounds, seen = 0, []

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            seen.append(rounds)
            yield b"a piece\n"

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def scrape() -> httpx.Response:
        counting = asyncio.create_task(count_rounds())
        try:
            return await edge._client.get("/metrics")
        finally:
            counting.cancel()

    monkeypatch.setattr(edge.metrics, "exposition", pieces)
    assert "a piece\n" * 3 == edge.run(scrape()).text
    assert seen[0] < seen[1] < seen[2]


def test_metrics_are_answered_while_the_store_is_away(start_edge: Callable[..., Edge], tmp_path: Path) -> None:
    """What only the store knows is then not a number, rather than an old one."""
    edge = start_edge(database=Database(f"sqlite:///{tmp_path}/empty.db"))
    response = edge.get("/metrics")
    assert response.status_code == 200
    assert "remediator_inbox_notifications NaN" in response.text.splitlines()


def test_reading_while_the_store_is_away_is_answered_503(start_edge: Callable[..., Edge], tmp_path: Path) -> None:
    """With words that name no file and no host."""
    edge = start_edge(database=Database(f"sqlite:///{tmp_path}/empty.db"))
    response = edge.get("/remediations")
    assert (503, "store_unavailable") == (response.status_code, response.json()["reason"])
    assert "table" not in response.text


def test_requests_are_measured_by_route_and_never_by_path(edge: Edge) -> None:
    """Or scanners would fill Prometheus."""
    made = edge.add_run()
    edge.get(f"/remediations/{made.id}")
    edge.get("/nothing/here")
    edge.request("BREW", "/pot")
    count = "remediator_http_request_duration_seconds_count"
    assert edge.metric(count, method="GET", route="/remediations/{run_id}", code="200") == 1
    assert edge.metric(count, method="GET", route="unmatched", code="404") == 1
    assert edge.metric(count, method="OTHER", route="unmatched", code="404") == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("PUT", "/catalog", 405, "method_not_allowed"),
        ("DELETE", "/remediations", 405, "method_not_allowed"),
        ("GET", "/-/reload", 405, "method_not_allowed"),
    ],
)
def test_the_frameworks_errors_are_problems_too(edge: Edge, method: str, path: str, status: int, reason: str) -> None:
    """With a title and words of our own."""
    response = edge.request(method, path)
    problem = response.json()
    assert (status, reason, "application/problem+json") == (
        response.status_code,
        problem["reason"],
        response.headers["content-type"],
    )
    assert {"type", "title", "status", "detail", "reason"} == set(problem)


def test_what_nobody_expected_is_a_problem_without_details(edge: Edge) -> None:
    """The log has them; the caller does not."""

    async def broken() -> list[str]:
        raise RuntimeError("the password is hunter2")

    object.__setattr__(edge.services, "ready", broken)
    transport = httpx.ASGITransport(app=edge.app, raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/-/ready")

    response = edge.run(ask())
    assert (500, "unexpected") == (response.status_code, response.json()["reason"])
    assert "hunter2" not in response.text


def test_no_answer_is_sniffed(edge: Edge) -> None:
    """Labels come from outside and must not become a page."""
    assert "nosniff" == edge.get("/remediations").headers["x-content-type-options"]


def test_every_answer_has_its_date(edge: Edge) -> None:
    """As HTTP asks of a server that has a clock."""
    assert edge.get("/nothing/here").headers["date"].endswith(" GMT")
