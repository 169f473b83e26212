"""Pauses and breakers by hand: who may, what is answered, what is audited, and what waits no longer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.outcomes.pausing import end_what_is_over
from app.store.audit import chain as events
from app.store.db.schema import breaker, message
from app.store.queries import search
from tests.support.edge import NOW, TOKENS, Edge, StartEdge, bearer

WAITS = {"not_before": NOW + timedelta(hours=1)}


def chain(edge: Edge, name: str) -> list[tuple[str, str, Any]]:
    """The events of a chain: kind, actor, data."""

    async def read() -> list[tuple[str, str, Any]]:
        async with edge.database.read() as tx:
            return [(row.kind, row.actor, row.data) for row in await search.events(tx, name)]

    return edge.run(read())


def test_a_pause_says_who_why_and_until_when(start_edge: StartEdge) -> None:
    """And is audited with its actor."""
    edge = start_edge(tokens=TOKENS)
    headers = bearer("secret-of-approver")
    shown = edge.request("PUT", "/pause", json={"why": "moving house", "for": "2h"}, headers=headers).json()
    expected = {
        "scope": "all",
        "subject": "",
        "holder": "the-approver",
        "why": "moving house",
        "since": "2026-03-01T12:00:00Z",
        "until": "2026-03-01T14:00:00Z",
    }
    assert [expected] == shown["items"] == edge.get("/pause", headers=bearer("secret-of-viewer")).json()["items"]
    assert [("paused", "the-approver", {"scope": "all", "subject": ""})] == chain(edge, events.SERVICE)


def test_a_second_pause_of_the_same_replaces_the_first(edge: Edge) -> None:
    """One for each person and subject; those of others and on others stand beside it."""
    edge.request("PUT", "/pause", json={"why": "first"})
    edge.request("PUT", "/pause", json={"why": "second", "until": "2026-03-01T13:00:00+00:00"})
    edge.request("PUT", "/pause", json={"why": "broken disk", "target": "kubernetes:Deployment/shop/api"})
    edge.post("/catalog/restart-api/pause", json={"why": "it restarts too often"})
    items = edge.get("/pause").json()["items"]
    assert ["second", "broken disk", "it restarts too often"] == [item["why"] for item in items]
    assert ["all", "target", "remediation"] == [item["scope"] for item in items]
    assert ["paused"] == [kind for kind, *_ in chain(edge, events.catalog_chain("restart-api"))]


def test_a_pause_ends_by_itself(edge: Edge) -> None:
    """When its time is over."""
    edge.request("PUT", "/pause", json={"why": "short", "for": "10m"})
    edge.now = NOW + timedelta(minutes=10)
    assert [] == edge.get("/pause").json()["items"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "why is missing"),
        ({"why": ""}, 422, "why"),
        ({"why": "x", "for": "1h", "until": "2026-03-01T13:00:00Z"}, 422, "at most one of for and until"),
        ({"why": "x", "remediation": "a", "target": "none:b"}, 422, "at most one of remediation and target"),
        ({"why": "x", "target": "shop/api"}, 422, "must be a target's key"),
        ({"why": "x", "remediation": "restart-apo"}, 404, "did you mean"),
        ({"why": "x", "until": "2026-03-01T11:00:00Z"}, 422, "over already"),
        ({"why": "x", "for": "soon"}, 422, "not a duration"),
        ({"why": "x", "who": "me"}, 422, "who is not known here"),
        ({"why": "x", "fore": "1h"}, 422, 'fore is not known here; did you mean "for"?'),
        ({"reason": "x"}, 422, 'did you mean "why"?'),
        ({"why": "x", "duration": "1h"}, 422, 'did you mean "for"?'),
        ({"why": "x", "expires": "1h"}, 422, 'did you mean "until"?'),
        ({"why": "x", "name": "restart-api"}, 422, 'did you mean "remediation"?'),
        ({"why": "x", "target": "kubernets:Deployment/shop/api"}, 422, 'did you mean "kubernetes"?'),
        ({"why": "x", "target": "kubernetes:Deploymnt/shop/api"}, 422, 'did you mean "Deployment"?'),
        ({"why": "x", "target": "kubernetes:Deployment/api"}, 422, "a kind, a namespace and a name"),
        ({"why": "x", "target": "kubernetes:Deployment/shop/Api"}, 422, "cannot be a target"),
        ({"why": "x", "target": "redis:cache/zero"}, 422, "redis:cache/0"),
        ({"why": "x", "target": "postgres:main"}, 422, "postgres:main/orders"),
    ],
)
def test_a_pause_that_makes_no_sense_is_refused(edge: Edge, body: dict[str, str], status: int, said: str) -> None:
    """With the field that is wrong; nothing is paused then."""
    response = edge.request("PUT", "/pause", json=body)
    assert status == response.status_code
    assert said in response.json()["detail"]
    assert [] == edge.get("/pause").json()["items"]


def test_a_post_pauses_too(edge: Edge) -> None:
    """For whoever stops everything in a hurry."""
    assert 200 == edge.post("/pause", json={"why": "fire"}).status_code
    assert [("all", "fire")] == [(item["scope"], item["why"]) for item in edge.get("/pause").json()["items"]]


def test_what_cannot_be_done_is_told_with_all_that_can(edge: Edge) -> None:
    """Also where several routes share the path."""
    response = edge.request("PATCH", "/pause", json={"why": "x"})
    assert (405, "DELETE, GET, POST, PUT") == (response.status_code, response.headers["allow"])
    assert "use DELETE, GET, POST, PUT" in response.json()["detail"]


def test_a_pause_without_an_end_says_so(edge: Edge) -> None:
    """Loudly, since nobody may remember it; one with an end has nothing to warn of."""
    endless = edge.request("PUT", "/pause", json={"why": "x"}).json()["warnings"]
    assert [True] == ["NO END" in warning for warning in endless]
    assert [] == edge.request("PUT", "/pause", json={"why": "x", "for": "1h"}).json()["warnings"]


def test_a_target_that_no_run_has_had_is_warned_of(edge: Edge) -> None:
    """With the one that was probably meant; one that has been seen is not."""
    seen = "kubernetes:Deployment/shop/api"
    edge.add_run(RunState.DEFERRED, reason=Reason.COOLDOWN, target_key=seen, **WAITS)
    body = {"why": "x", "for": "1h", "target": "kubernetes:Deployment/shop/apii"}
    (warning,) = edge.request("PUT", "/pause", json=body).json()["warnings"]
    assert 'did you mean "kubernetes:Deployment/shop/api"?' in warning
    assert [] == edge.request("PUT", "/pause", json=body | {"target": seen}).json()["warnings"]


def test_a_pause_is_told_to_the_channel(start_edge: StartEdge) -> None:
    """When it begins, when somebody takes it away, and when it is over; each once."""
    edge = start_edge(channel="ops")
    edge.request("PUT", "/pause", json={"why": "moving house"})
    edge.request("DELETE", "/pause")
    edge.request("PUT", "/pause", json={"why": "short", "for": "10m", "remediation": "restart-api"})
    edge.now = NOW + timedelta(minutes=10)
    edge.run(end_what_is_over(edge.parts))
    edge.run(end_what_is_over(edge.parts))

    async def read() -> list[Any]:
        async with edge.database.read() as tx:
            return list(await tx.execute(select(message.c.channel, message.c.title, message.c.body)))

    rows = edge.run(read())
    titles = ["Paused: everything", "Goes on: everything", "Paused: remediation restart-api"]
    assert [*titles, "Goes on: remediation restart-api"] == [row.title for row in rows]
    assert {"ops"} == {row.channel for row in rows}
    assert "WITHOUT AN END" in rows[0].body
    assert "moving house" in rows[0].body
    assert ["paused", "pause_ended"] == [kind for kind, *_ in chain(edge, events.catalog_chain("restart-api"))]


def test_what_is_paused_is_in_metrics_and_readiness(edge: Edge) -> None:
    """For everybody, and so without who, why and on which target."""
    assert 'remediator_pauses{scope="all"} 0.0' in edge.get("/metrics").text
    edge.request("PUT", "/pause", json={"why": "secret reason"})
    edge.request("PUT", "/pause", json={"why": "secret reason", "target": "postgres:secret/orders"})
    ready = edge.get("/-/ready").text
    assert "PAUSED: everything, since 2026-03-01 12:00:00 UTC, without an end" in ready
    assert "paused: 1 target" in ready
    assert "secret" not in ready
    found = edge.get("/metrics").text
    assert 'remediator_pauses{scope="all"} 1.0' in found
    assert 'remediator_pauses{scope="target"} 1.0' in found


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/pause?remedation=restart-api"), ("GET", "/events?limit=3"), ("GET", "/catalog?mode=auto")],
)
def test_a_parameter_with_a_typing_error_is_refused(edge: Edge, method: str, path: str) -> None:
    """Left out silently, it would take away the pause of everything, or answer with everything."""
    edge.request("PUT", "/pause", json={"why": "all of it"})
    response = edge.request(method, path)
    assert (422, "invalid_query") == (response.status_code, response.json()["reason"])
    assert "unknown query parameter" in response.json()["detail"]
    assert ["all of it"] == [item["why"] for item in edge.get("/pause").json()["items"]]


def test_resuming_lets_what_waited_be_decided_at_once(edge: Edge) -> None:
    """Without waiting for its next look."""
    edge.request("PUT", "/pause", json={"why": "away"})
    made = edge.add_run(RunState.DEFERRED, reason=Reason.PAUSED, **WAITS)
    other = edge.add_run(RunState.DEFERRED, reason=Reason.COOLDOWN, **WAITS)
    assert {"items": []} == edge.request("DELETE", "/pause").json()
    found, left = edge.stored(made.id), edge.stored(other.id)
    assert found is not None
    assert left is not None
    assert (NOW, WAITS["not_before"]) == (found.not_before, left.not_before)
    assert edge.work.is_set()


def test_nobody_but_an_admin_takes_somebody_elses_pause_away(start_edge: StartEdge) -> None:
    """Who has a reason of their own keeps it; the answer says whose pauses there are."""
    edge = start_edge(tokens=TOKENS)
    approver, admin = bearer("secret-of-approver"), bearer("secret-of-admin")
    edge.request("PUT", "/pause", json={"why": "upgrade"}, headers=admin)
    own = edge.request("DELETE", "/pause", headers=approver)
    assert (404, True) == (own.status_code, "the-admin" in own.json()["detail"])
    theirs = edge.request("DELETE", "/pause?holder=the-admin", headers=approver)
    assert 403 == theirs.status_code
    edge.request("PUT", "/pause", json={"why": "lunch"}, headers=approver)
    assert 200 == edge.request("DELETE", "/pause?holder=the-approver", headers=admin).status_code
    assert ["upgrade"] == [item["why"] for item in edge.get("/pause", headers=admin).json()["items"]]


@pytest.mark.parametrize(
    ("role", "status"), [("alertmanager", 403), ("viewer", 403), ("approver", 200), ("admin", 200)]
)
def test_only_some_roles_may_pause(start_edge: StartEdge, role: str, status: int) -> None:
    """A viewer looks on."""
    edge = start_edge(tokens=TOKENS)
    response = edge.request("PUT", "/pause", json={"why": "x"}, headers=bearer(f"secret-of-{role}"))
    assert status == response.status_code


def test_an_unknown_remediation_cannot_be_paused(edge: Edge) -> None:
    """A slip of the pen would pause nothing."""
    assert 404 == edge.post("/catalog/restart-apis/pause", json={"why": "x"}).status_code
    assert 404 == edge.post("/catalog/restart-api/resume").status_code


@pytest.mark.parametrize(("waiting", "state"), [("replay", RunState.DEFERRED), ("drop", RunState.CANCELLED)])
def test_a_breaker_is_closed_by_hand(edge: Edge, waiting: str, state: RunState) -> None:
    """With what waited decided at once, or cancelled with its reason."""

    async def trip() -> None:
        async with edge.database.write() as tx:
            row = {"remediation": "restart-api", "failures": 3, "opened_at": NOW, "trial_at": NOW + timedelta(hours=1)}
            await tx.execute(insert(breaker), [row])

    edge.run(trip())
    made = edge.add_run(RunState.DEFERRED, reason=Reason.BREAKER_OPEN, **WAITS)
    answer = edge.post("/catalog/restart-api/breaker/close", json={"waiting": waiting, "comment": "disk replaced"})
    assert {"was_open": True, "dropped": int(waiting == "drop")} == answer.json()
    found = edge.stored(made.id)
    assert found is not None
    assert (state, NOW) == (found.state, found.not_before)
    if waiting == "drop":
        assert Reason.BREAKER_DROPPED is found.reason
    ((kind, _, data),) = chain(edge, events.catalog_chain("restart-api"))
    assert ("breaker_closed", waiting, "disk replaced") == (kind, data["waiting"], data["comment"])
    again = edge.post("/catalog/restart-api/breaker/close", json={"waiting": waiting})
    assert {"was_open": False, "dropped": 0} == again.json()


def test_closing_a_breaker_needs_a_word_about_what_waits(edge: Edge) -> None:
    """There is no default between acting and not acting."""
    response = edge.post("/catalog/restart-api/breaker/close")
    assert (422, "waiting is missing") == (response.status_code, response.json()["detail"])
