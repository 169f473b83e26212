"""The audit: filters, pages, formats, and everything about one run."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.domain.episodes import Episode
from app.domain.states import FINAL_STATES, RunState
from app.store.db.schema import step
from app.store.ledger import episodes, runs
from tests.support.edge import NOW, Edge, make_episode

MINUTE = timedelta(minutes=1)
PLAN: dict[str, Any] = {
    "rung": 0,
    "target": {"backend": "kubernetes", "key": "kubernetes:Deployment/shop/api"},
    "steps": [
        {"action": "kubernetes.scale", "summary": "scale", "before": {"replicas": 2}, "desired": {"replicas": 3}},
        {"action": "kubernetes.rollout_restart", "summary": "restart", "before": {}, "desired": {"at": "noon"}},
    ],
}


def names(edge: Edge, query: str) -> list[str]:
    """The remediations of a page, in its order."""
    response = edge.get(f"/remediations?{query}")
    assert response.status_code == 200, response.text
    return [item["remediation"] for item in response.json()["items"]]


@pytest.fixture
def ledger(edge: Edge) -> Edge:
    """Five runs, one a minute, oldest first: a to e."""
    edge.add_run(RunState.SUCCEEDED, remediation="a", effective=True, target_key="kubernetes:Deployment/shop/api")
    edge.add_run(RunState.FAILED, after=MINUTE, remediation="b", effective=False, target_key="redis:cache/0")
    edge.add_run(RunState.DEFERRED, after=2 * MINUTE, remediation="c", namespace="bank", labels={"team": "red"})
    edge.add_run(RunState.RUNNING, after=3 * MINUTE, remediation="d", alertname="Slow", labels={'we"ird né': "a=b"})
    edge.add_run(RunState.DENIED, after=4 * MINUTE, remediation="e", target_key="kubernetes:Deployment/shop/web_1")
    edge.now = NOW + 5 * MINUTE
    return edge


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "edcba"),
        ("remediation=b", "b"),
        ("remediation=b&remediation=d", "db"),
        ("remediation=restart", ""),
        ("state=deferred&state=running", "dc"),
        ("outcome=failed&outcome=denied", "eb"),
        ("state=failed&outcome=denied", ""),
        ("effective=true", "a"),
        ("effective=false", "b"),
        ("target=kubernetes:Deployment/shop/api", "a"),
        ("target=shop", "ea"),
        ("target=web_", "e"),
        ("target=web%25", ""),
        ("alertname=Slow", "d"),
        ("namespace=bank", "c"),
        ("label=team=red", "c"),
        ("label=team=blue", ""),
        ("label=we%22ird%20n%C3%A9=a%3Db", "d"),
        ("label=team=red&label=alertname=Down", "c"),
        ("since=2026-03-01T12:03:00Z", "ed"),
        ("since=2026-03-01T13:03:00%2B01:00", "ed"),
        ("since=2026-03-01T13:03:00+01:00", "ed"),
        ("since=2m", "ed"),
        ("until=3m", "ba"),
        ("since=4m&until=2m", "cb"),
        ("since=2026-03-01", "edcba"),
        ("since=0001-01-01T00:00:00Z&until=9999-12-31T00:00:00Z", "edcba"),
        ("limit=2", "ed"),
    ],
)
def test_filters_narrow_the_list_together(ledger: Edge, query: str, expected: str) -> None:
    """Newest first; one letter stands for one run."""
    assert list(expected) == names(ledger, query)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sate=failed", "unknown query parameter 'sate'; did you mean \"state\"?"),
        ("zzz=1", "unknown query parameter 'zzz' ("),
        ("state=broken", "state"),
        ("outcome=pending", "an outcome is one of"),
        ("limit=0", "limit should be greater than or equal to 1"),
        ("limit=501", "limit"),
        ("limit=all", "limit"),
        ("effective=perhaps", "effective"),
        ("since=yesterday", "is no time; write 2026-01-31T12:00:00Z"),
        ("since=2026-13-01", "is no time"),
        ("since=0001-01-01T00:00:00%2B14:00", "is no time"),
        ("label=team", "write it as name=value"),
        ("label==x", "write it as name=value"),
        ("cursor=nonsense", "is not a cursor"),
        ("cursor=", "is not a cursor"),
        ("target=%00", "NUL"),
        ("label=a=%00", "NUL"),
        ("format=xml", "format"),
    ],
)
def test_a_wrong_question_is_refused_in_words(edge: Edge, query: str, words: str) -> None:
    """A filter with a typing error would otherwise answer with everything."""
    response = edge.get(f"/remediations?{query}")
    assert (422, "invalid_query") == (response.status_code, response.json()["reason"])
    assert words in response.json()["detail"]


def test_pages_follow_each_other_without_gap_or_overlap(ledger: Edge) -> None:
    """Also while new runs come in; the link keeps the filters."""
    seen: list[str] = []
    path: str | None = "/remediations?limit=2&namespace=shop"
    while path is not None:
        response = ledger.get(path)
        seen += [item["remediation"] for item in response.json()["items"]]
        ledger.add_run(after=10 * MINUTE, remediation="new")
        link = response.headers.get("link")
        assert (link is None) is (response.json()["next"] is None)
        path = link.partition(">")[0].removeprefix("<") if link else None
    assert list("edba") == seen


def test_a_list_is_written_as_asked(ledger: Edge) -> None:
    """By the query first, then by the Accept header, else as JSON."""
    asked = [
        ("", "*/*", "application/json"),
        ("", "text/html,text/csv;q=0.5", "text/csv; charset=utf-8"),
        ("?format=ndjson", "text/csv", "application/x-ndjson"),
        ("?format=csv", "application/json", "text/csv; charset=utf-8"),
    ]
    for query, accept, media_type in asked:
        response = ledger.get(f"/remediations{query}", headers={"accept": accept})
        assert media_type == response.headers["content-type"]


def test_every_format_holds_the_same(ledger: Edge) -> None:
    """Column by column."""
    items: list[dict[str, Any]] = ledger.get("/remediations").json()["items"]
    lines = ledger.get("/remediations?format=ndjson").text.splitlines()
    table = list(csv.DictReader(io.StringIO(ledger.get("/remediations?format=csv").text)))
    assert items == [json.loads(line) for line in lines]
    assert [list(item) for item in items] == [list(row) for row in table]
    assert [item["id"] for item in items] == [row["id"] for row in table]
    assert [item["labels"] for item in items] == [json.loads(row["labels"]) for row in table]


def test_an_empty_table_still_has_its_columns(edge: Edge) -> None:
    """A spreadsheet without rows is not an error."""
    assert edge.get("/remediations?format=csv").text.startswith("id,remediation,state,reason,")


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1"])
def test_a_table_holds_no_formula(edge: Edge, value: str) -> None:
    """Labels come from outside, and spreadsheets run what looks like a formula."""
    edge.add_run(message=value, alertname=value)
    row = next(csv.DictReader(io.StringIO(edge.get("/remediations?format=csv").text, newline="")))
    assert (f"'{value}", f"'{value}") == (row["message"], row["alertname"])


def test_times_are_utc_and_say_so(ledger: Edge) -> None:
    """RFC 3339 with a Z."""
    assert "2026-03-01T12:04:00Z" == ledger.get("/remediations").json()["items"][0]["created_at"]


def test_one_run_shows_everything(edge: Edge) -> None:
    """Plan, steps with before and desired, alerts, events, and the remediation as it was."""
    made = edge.add_run(RunState.RUNNING, plan=PLAN, decisions=[{"guard": "mode", "verdict": "allow"}])
    row = {"run_id": made.id, "rung": 0, "position": 0, "action": "kubernetes.scale", "state": "succeeded", "tries": 1}
    row |= {"planned": PLAN["steps"][0]}

    async def write() -> None:
        async with edge.database.write() as tx:
            times = {"started_at": NOW, "finished_at": NOW + MINUTE}
            await tx.execute(step.insert().values(row | times | {"result": {"replicas": 3}}))

    edge.run(write())
    shown = edge.get(f"/remediations/{made.id}").json()
    assert PLAN == shown["plan"]
    assert [
        ("succeeded", {"replicas": 2}, {"replicas": 3}, {"replicas": 3}, "2026-03-01T12:01:00Z"),
        ("planned", {}, {"at": "noon"}, None, None),
    ] == [(one["state"], one["before"], one["desired"], one["result"], one["finished_at"]) for one in shown["steps"]]
    assert ("restart-api", "d" * 64) == (shown["specification"]["name"], shown["catalog"])
    assert [{"alertname": "Down", "namespace": "shop"}] == [one["labels"] for one in shown["episodes"]]
    assert [("recorded", "remediator")] == [(one["kind"], one["actor"]) for one in shown["events"]]
    assert [{"guard": "mode", "verdict": "allow"}] == shown["decisions"]
    assert shown["events"] == edge.get(f"/remediations/{made.id}/events").json()["items"]


def test_a_run_that_joined_another_leads_to_it(edge: Edge) -> None:
    """Its own events stay; its alerts are found at the other run, which a label of theirs finds too."""
    first = edge.add_run(labels={"pod": "one"})
    second = edge.add_run(after=MINUTE, labels={"pod": "two"})

    async def fold() -> None:
        async with edge.database.write() as tx:
            await runs.fold(tx, second, first, NOW + MINUTE)

    edge.run(fold())
    response = edge.get(f"/remediations/{second.id}")
    assert (308, f"/remediations/{first.id}") == (response.status_code, response.headers["location"])
    pods = {one["labels"]["pod"] for one in edge.get(f"/remediations/{first.id}").json()["episodes"]}
    assert {"one", "two"} == pods
    kinds = [one["kind"] for one in edge.get(f"/remediations/{second.id}/events").json()["items"]]
    assert ["recorded", "folded"] == kinds
    assert [first.id] == [item["id"] for item in edge.get("/remediations?label=pod=two").json()["items"]]


@pytest.mark.parametrize("suffix", ["", "/events"])
def test_an_unknown_run_is_not_found(edge: Edge, suffix: str) -> None:
    """And what is no id at all is said to be none."""
    missing = edge.get(f"/remediations/018f0000-0000-7000-8000-000000000000{suffix}")
    assert (404, "not_found") == (missing.status_code, missing.json()["reason"])
    assert 422 == edge.get(f"/remediations/first{suffix}").status_code


def _create(edge: Edge, *new: Episode) -> None:
    async def write() -> None:
        async with edge.database.write() as tx:
            await episodes.create(tx, new)

    edge.run(write())


def _closed(one: Episode, at: datetime) -> Episode:
    return replace(one, closed_at=at, resolved_at=at)


def test_episodes_answer_why_nothing_happened(edge: Edge) -> None:
    """What no remediation matched is listed too, and says so."""
    made = edge.add_run()
    lonely = make_episode({"alertname": "Nobody"}, NOW + MINUTE)
    ended = _closed(make_episode({"alertname": "Over"}, NOW + 2 * MINUTE), NOW + 2 * MINUTE)
    _create(edge, lonely, ended)
    over, nobody, down = edge.get("/episodes").json()["items"]
    assert (["restart-api"], None) == (down["matched"], down["explanation"])
    expected = {
        "id": made.id,
        "remediation": "restart-api",
        "state": "pending",
        "reason": None,
        "message": made.message,
    }
    assert [expected] == down["runs"]
    assert ([], [], "no remediation of the catalog has matched its labels") == (
        nobody["matched"],
        nobody["runs"],
        nobody["explanation"].partition(";")[0],
    )
    assert "it had resolved before it was first seen, so nothing was matched" == over["explanation"]


def test_an_alert_that_is_set_aside_says_why(edge: Edge) -> None:
    """It is listed among what nothing matched."""
    _create(edge, replace(make_episode({"alertname": "Huge"}, NOW), defect="it has 501 labels, and 500 are the most"))
    (huge,) = edge.get("/episodes?matched=false").json()["items"]
    said = "it is set aside, so nothing was matched: it has 501 labels, and 500 are the most"
    assert said == huge["explanation"]


def test_an_alert_older_than_its_remediation_says_when_it_is_acted_on(edge: Edge) -> None:
    """Not that it lacks a label, since none is missing."""
    open_still, closed = (make_episode({"alertname": "Down"}, NOW + number * MINUTE) for number in (1, 2))
    _create(edge, open_still, _closed(closed, NOW + 3 * MINUTE))
    said = "no remediation of the catalog has matched its labels; restart-api matches now, and is decided on"
    assert [f"{said} the next time it fires", f"{said} when Alertmanager sends the alert again"] == [
        item["explanation"] for item in edge.get("/episodes").json()["items"]
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["Nobody", "Down"]),
        ("alertname=Down", ["Down"]),
        ("matched=true", ["Down"]),
        ("matched=false", ["Nobody"]),
        ("open=true", ["Nobody", "Down"]),
        ("open=false", []),
        ("label=alertname=Nobody", ["Nobody"]),
        ("since=30s", ["Nobody"]),
        ("limit=1", ["Nobody"]),
    ],
)
def test_episodes_are_filtered(edge: Edge, query: str, expected: list[str]) -> None:
    """By what was received, not by what came of it."""
    edge.add_run()
    _create(edge, make_episode({"alertname": "Nobody"}, NOW + MINUTE))
    edge.now = NOW + MINUTE
    assert expected == [item["alertname"] for item in edge.get(f"/episodes?{query}").json()["items"]]
    assert expected == [
        json.loads(line)["alertname"] for line in edge.get(f"/episodes?{query}&format=ndjson").text.splitlines()
    ]


def test_every_state_can_be_asked_for(edge: Edge) -> None:
    """Each as `state`, the final ones as `outcome` too."""
    for number, state in enumerate(RunState):
        edge.add_run(state, after=number * MINUTE)
    for state in RunState:
        found = edge.get(f"/remediations?state={state}").json()["items"]
        assert [state] == [item["state"] for item in found]
        expected = 200 if state in FINAL_STATES else 422
        assert expected == edge.get(f"/remediations?outcome={state}").status_code
