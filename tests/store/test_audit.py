"""What people ask and decide, on both stores: filters that the databases spell differently, and two people at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.domain.states import RunState
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.ledger import episodes, outbox, runs
from app.store.ledger.outbox import Draft
from app.store.migrations.migrate import migrate
from app.store.queries import search
from tests.support.edge import NOW, Edge, make_episode

MINUTE = timedelta(minutes=1)


@pytest.fixture
def edge(store: str, tmp_path: Path) -> Iterator[Edge]:
    """The HTTP edge on this store."""
    edge = Edge(tmp_path, database=Database(store))
    edge.run(migrate(edge.database))
    edge.start()
    yield edge
    edge.close()


def found(edge: Edge, query: str) -> list[str]:
    """The remediations of the runs that a query finds."""
    response = edge.get(f"/remediations?{query}")
    assert response.status_code == 200, response.text
    return [item["remediation"] for item in response.json()["items"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("label=team=red", ["b"]),
        ("label=team=red&label=pod=one", []),
        ("label=we%22ird%20%27n%C3%A9%5C.%24[0]=a%3Db%22", ["c"]),
        ("label=missing=", []),
        ("target=Deployment/shop", ["a"]),
        ("target=%25", []),
        ("effective=true", ["a"]),
        ("since=90s", ["c"]),
        ("until=90s", ["b", "a"]),
        ("state=succeeded&state=running&limit=1", ["b"]),
        ("alertname=%F0%9F%94%A5", []),
        ("alertname=%27%20OR%201=1%20--", []),
    ],
)
def test_filters_find_the_same_on_both_stores(edge: Edge, query: str, expected: list[str]) -> None:
    """Also for label names that no path expression can spell."""
    edge.add_run(RunState.SUCCEEDED, remediation="a", effective=True, target_key="kubernetes:Deployment/shop/api")
    edge.add_run(RunState.RUNNING, after=MINUTE, remediation="b", labels={"team": "red"})
    edge.add_run(RunState.FAILED, after=2 * MINUTE, remediation="c", labels={"we\"ird 'né\\.$[0]": 'a=b"'})
    edge.now = NOW + 3 * MINUTE
    assert expected == found(edge, query)


def test_a_run_that_did_nothing_says_what_it_would_do(edge: Edge) -> None:
    """By the summaries of the steps that would change something, whichever fields another release has stored."""
    steps = [
        {"action": "a", "summary": "scale it", "changes": True},
        {"action": "b", "summary": "is so", "changes": False},
        {"action": "c", "summary": "of before"},
    ]
    edge.add_run(RunState.OBSERVED, remediation="a", plan={"rung": 0, "steps": steps, "target": {"key": "k"}})
    edge.add_run(RunState.DENIED, remediation="b", after=MINUTE)
    denied, observed = edge.get("/remediations").json()["items"]
    assert ([], ["scale it", "of before"], []) == (observed["done"], observed["planned"], denied["planned"])
    assert observed["planned"] == edge.get(f"/remediations/{observed['id']}").json()["planned"]


def test_a_label_of_any_alert_of_a_run_finds_it(edge: Edge) -> None:
    """A run that acts for two alerts is found by both."""
    first = edge.add_run(remediation="a", labels={"pod": "one"})
    second = edge.add_run(remediation="a", after=MINUTE, labels={"pod": "two"})

    async def fold() -> None:
        async with edge.database.write() as tx:
            await runs.fold(tx, second, first, NOW)

    edge.run(fold())
    assert ["a"] == found(edge, "label=pod=two")
    assert 308 == edge.get(f"/remediations/{second.id}").status_code


def test_episodes_are_found_by_what_matched_them(edge: Edge) -> None:
    """An empty list is no match on both stores."""
    edge.add_run()
    lonely = make_episode({"alertname": "Nobody"}, NOW + MINUTE)

    async def write(tx: AsyncConnection) -> None:
        await episodes.create(tx, [lonely])

    async def story() -> None:
        async with edge.database.write() as tx:
            await write(tx)

    edge.run(story())
    for query, expected in (
        ("matched=false", ["Nobody"]),
        ("matched=true", ["Down"]),
        ("label=alertname=Down", ["Down"]),
    ):
        items = edge.get(f"/episodes?{query}&open=true").json()["items"]
        assert expected == [item["alertname"] for item in items]


def test_pages_follow_each_other(edge: Edge) -> None:
    """Ids sort by time on both stores."""
    for number in range(5):
        edge.add_run(after=number * MINUTE, remediation=f"r{number}")
    first = edge.get("/remediations?limit=3").json()
    second = edge.get(f"/remediations?limit=3&cursor={first['next']}").json()
    seen = [item["remediation"] for page in (first, second) for item in page["items"]]
    assert (["r4", "r3", "r2", "r1", "r0"], None) == (seen, second["next"])


def everything(edge: Edge, path: str) -> tuple[list[str], int]:
    """The ids on all pages, and how many pages there were."""
    ids, pages, more = list[str](), 0, ""
    while more is not None:
        answer = edge.get(f"{path}&limit=3{more and f'&cursor={more}'}").json()
        ids += [item["id"] for item in answer["items"]]
        pages, more = pages + 1, answer["next"]
    return ids, pages


def test_pages_that_look_at_few_entries_lead_to_all(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """However rare what is asked for: nothing is left out, nothing comes twice, and the order is kept."""
    for number in range(24):
        edge.add_run(
            RunState.FAILED if number % 5 == 0 else RunState.SUCCEEDED,
            after=number * MINUTE,
            remediation=f"r{number % 3}",
            alertname=f"A{number % 4}",
            effective=number % 7 == 0,
            target_key=f"redis:{number % 6}/0",
            labels={"pod": str(number % 11)},
        )
    edge.now = NOW + 24 * MINUTE
    queries = ["label=pod=1", "label=pod=none", "since=20m&until=3m&label=pod=1"]
    runs_too = ["target=redis:4", "remediation=r1&alertname=A2", "remediation=r0&remediation=r1&state=failed"]
    runs_too += ["state=failed&state=succeeded&effective=true", "alertname=A1&effective=true", "state=denied"]
    paths = [f"/remediations?{query}" for query in queries + runs_too]
    paths += [f"/episodes?{query}" for query in [*queries, "open=true&label=pod=1", "open=false", "matched=false"]]
    whole = {path: everything(edge, path)[0] for path in paths}
    monkeypatch.setattr(search, "_LOOKED_AT", 4)
    for path, expected in whole.items():
        ids, pages = everything(edge, path)
        assert expected == ids, path
        assert pages <= 14, path
    assert [3, 2] == [len(whole[f"/remediations?{query}"]) for query in ("label=pod=1", "remediation=r1&alertname=A2")]


def test_of_many_people_one_decides(edge: Edge) -> None:
    """The others are told what the run has become."""
    made = edge.add_run(RunState.AWAITING_APPROVAL)

    async def all_at_once() -> list[int]:
        verbs = ("approve", "reject") * 4
        asked = (edge._client.post(f"/remediations/{made.id}/{verb}") for verb in verbs)
        return sorted(answer.status_code for answer in await asyncio.gather(*asked))

    assert [200] + [409] * 7 == edge.run(all_at_once())
    kinds = [one["kind"] for one in edge.get(f"/remediations/{made.id}/events").json()["items"]]
    assert len(kinds) == 2
    assert kinds[1] in {"approved", "rejected"}


def test_hostile_text_is_stored_as_it_came(edge: Edge) -> None:
    """A NUL excepted, which PostgreSQL cannot hold."""
    alert = {
        "status": "firing",
        "startsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "ab",
        "labels": {"a": "'; -- \0\U0001f525"},
    }
    body = {
        "version": "4",
        "receiver": "r\0",
        "status": "firing",
        "alerts": [alert],
        "groupKey": "\0",
        "truncatedAlerts": 2**31 - 1,
    }
    assert 202 == edge.notify(json.dumps(body).encode()).status_code


def test_metrics_count_on_both_stores(edge: Edge) -> None:
    """Runs by state, the inbox, and what people are still to be told."""
    for state in (RunState.DEFERRED, RunState.RUNNING, RunState.RUNNING, RunState.SUCCEEDED):
        edge.add_run(state)
    assert 202 == edge.notify(b'{"version":"4","receiver":"r","status":"firing","alerts":[]}').status_code

    async def queue() -> None:
        async with edge.database.write() as tx:
            for number in range(3):
                await outbox.queue(tx, Draft(f"{number}", "ops", "title", "body"), NOW)

    edge.run(queue())
    edge.get("/metrics")
    active = {
        state.value: edge.metric("remediator_active_runs", state=state) for state in RunState if not state.is_final
    }
    assert {"deferred": 1.0, "running": 2.0} == {state: count for state, count in active.items() if count}
    assert 1 == edge.metric("remediator_inbox_notifications")
    assert 3 == edge.metric("remediator_messages_waiting")
