"""The audit as a stream of NDJSON; server-sent events need a connection, and are in tests/acceptance/test_audit.py."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Request

from app.api import events
from app.domain.states import RunState
from app.store.audit import stream
from app.store.audit.seals import Cursor
from app.store.audit.stream import Page, Wanted
from app.store.db.database import Database
from tests.support.edge import NOW, TOKENS, Edge, StartEdge, bearer


def lines(edge: Edge, query: str = "") -> list[dict[str, Any]]:
    """What the stream holds."""
    return [json.loads(line) for line in edge.get(f"/events{query}").text.splitlines()]


def pause(edge: Edge) -> None:
    """Add an event that is no run's."""
    edge.request("PUT", "/pause", json={"why": "away", "remediation": "restart-api"})


def test_events_are_told_with_what_they_are_about(edge: Edge) -> None:
    """A run's with its alert and remediation, in order, each with where to go on."""
    made = edge.add_run(RunState.AWAITING_APPROVAL)
    edge.post(f"/remediations/{made.id}/approve", json={"comment": "go"})
    pause(edge)
    first, second, third = lines(edge)
    assert ("recorded", "approved", "paused") == (first["kind"], second["kind"], third["kind"])
    assert (made.id, "restart-api", "Down") == (
        second["chain"],
        second["run"]["remediation"],
        second["run"]["alertname"],
    )
    assert ("catalog/restart-api", None, 1) == (third["chain"], third["run"], third["seq"])
    assert [second, third] == lines(edge, f"?after={first['cursor']}")
    assert [third] == lines(edge, "?kind=paused&kind=resumed")
    assert [] == lines(edge, "?since=2027-01-01T00:00:00Z")
    edge.now = NOW + timedelta(minutes=10)
    assert (3, 0) == (len(lines(edge, "?since=10m")), len(lines(edge, "?since=9m")))
    assert 3 == len(lines(edge, "?remediation=restart-api"))
    assert "application/x-ndjson" in edge.get("/events").headers["content-type"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("after=yesterday", "after is not a cursor; take it from the `cursor` of an event"),
        ("after=1", "after is not a cursor; take it from the `cursor` of an event"),
        ("since=noon", "since 'noon' is no time; write 2026-01-31T12:00:00Z, or how long ago, for example 90m or 7d"),
        ("remediation=" + "x" * 64, "remediation String should have at most 63 characters"),
    ],
)
def test_a_place_that_is_none_is_refused(edge: Edge, query: str, words: str) -> None:
    """With the parameter that is wrong."""
    response = edge.get(f"/events?{query}")
    assert (422, words) == (response.status_code, response.json()["detail"])


def test_only_who_may_look_sees_events(start_edge: StartEdge) -> None:
    """Alertmanager may not."""
    edge = start_edge(tokens=TOKENS)
    assert 401 == edge.get("/events").status_code
    assert 403 == edge.get("/events", headers=bearer("secret-of-alertmanager")).status_code
    assert 200 == edge.get("/events", headers=bearer("secret-of-viewer")).status_code


def test_a_filtered_stream_does_not_look_at_the_same_events_again(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look of server-sent events begins where the one before ended, although nothing was wanted there."""
    pause(edge)
    starts, look = [], stream.page

    async def page(database: Database, start: Cursor, wanted: Wanted) -> Page:
        starts.append(start)
        if len(starts) == 3:
            edge.services.stopping.set()
        return await look(database, start, wanted)

    async def follow() -> None:
        request = Request({"type": "http", "app": edge.app, "headers": [], "client": ("127.0.0.1", 1)})
        async for _ in events._server_sent(request, edge.services, Cursor(), Wanted(kinds=("resumed",))):
            continue

    monkeypatch.setattr(stream, "page", page)
    monkeypatch.setattr(events, "_LOOK_SECONDS", 0.01)
    edge.run(follow())
    assert [Cursor(0, 0), Cursor(0, 1), Cursor(0, 1)] == starts
