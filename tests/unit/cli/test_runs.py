"""`remediator runs`: what was done lately, as a person at a terminal reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli import cli
from app.cli.history import described
from app.domain.states import RunState
from app.store.db.schema import step
from tests.support import web
from tests.support.edge import NOW, Edge, make_store

TARGET = "kubernetes:Deployment/shop/api"
SCALE: dict[str, Any] = {
    "action": "kubernetes.scale",
    "summary": "scale Deployment shop/api from 3 to 5 replicas",
    "before": {"uid": "u", "generation": 4, "replicas": 3},
    "desired": {"replicas": 5},
}
SESSIONS: dict[str, Any] = {
    "action": "postgres.terminate_idle",
    "summary": "end 28 sessions of database orders idle for 10m or longer",
    "before": {"connections": 40, "idle": 30, "qualifying": 28, "selected": [{"pid": 1}] * 28},
    "desired": {"terminated": [[1, "2026-03-01T10:00:00Z"]] * 28},
}
ENDED = {"terminated": 27, "skipped": 1, "still_closing": 0, "connections": 13}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would set up the logs of this process."""
    monkeypatch.setattr("app.cli.options.configure", lambda *_: None)


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Edge]:
    """A night of six runs."""
    make_store(tmp_path / "store.db")
    edge = Edge(tmp_path)
    _fill(edge)
    yield edge
    edge.close()


def _fill(edge: Edge) -> None:
    edge.now = NOW + timedelta(hours=1)
    _did(edge, SCALE, "succeeded", {"written": True, "object": "Deployment shop/api", "replicas": 5}, effective=True)
    _did(
        edge, SESSIONS, "succeeded", ENDED, minutes=1, remediation="free-connections", target_key="postgres:main/orders"
    )
    _did(
        edge,
        SCALE,
        "failed",
        None,
        minutes=2,
        state=RunState.FAILED,
        message="step 1 (kubernetes.scale): not allowed to patch deployments/scale",
    )
    plan = {"rung": 0, "target": {"backend": "none", "key": "none"}, "steps": [SCALE]}
    would = {"plan": plan, "message": "the remediation's mode is observe: the plan is only shown"}
    edge.add_run(RunState.OBSERVED, after=timedelta(minutes=3), target_key=TARGET, **would)
    denied = "no namespace of the setting scope.namespaces is payments, so that nothing in it is ever acted on"
    edge.add_run(RunState.DENIED, after=timedelta(minutes=4), remediation="a" * 63, message=denied)
    _did(edge, SCALE, "succeeded", {"replicas": 3}, minutes=5, purpose="undo", undoes="01956b3e")


def _did(edge: Edge, planned: dict[str, Any], ended: str, result: Any, minutes: int = 0, **columns: Any) -> None:
    """A run of one step."""
    state = columns.pop("state", RunState.SUCCEEDED)
    made = edge.add_run(state, after=timedelta(minutes=minutes), **{"target_key": TARGET} | columns)
    row = {"run_id": made.id, "rung": 0, "position": 0, "action": planned["action"], "tries": 1, "planned": planned}
    error = None if ended == "succeeded" else "not allowed to patch deployments/scale"

    async def write() -> None:
        async with edge.database.write() as tx:
            await tx.execute(step.insert().values(**row, state=ended, started_at=NOW, result=result, error=error))

    edge.run(write())


def _store(edge: Edge) -> str:
    return f"sqlite:///{edge.database.url.database}"


def runs(*words: str, **environment: str) -> Result:
    """The command in this process."""
    return CliRunner().invoke(cli, ["runs", "--since", "2026-03-01", *words], env=environment)


def test_the_list_says_what_was_done_and_whether_it_helped(night: Edge) -> None:
    """In words, from what to what; also in CSV, which a spreadsheet shows."""
    items = night.get("/remediations").json()["items"]
    assert [
        ["scale Deployment shop/api from 3 to 5 replicas (replicas 5 → 3)"],
        [],
        [],
        ["scale Deployment shop/api from 3 to 5 replicas: failed: not allowed to patch deployments/scale"],
        ["end 28 sessions of database orders idle for 10m or longer (terminated 27, skipped 1, connections 40 → 13)"],
        ["scale Deployment shop/api from 3 to 5 replicas (replicas 3 → 5)"],
    ] == [item["done"] for item in items]
    assert [[], ["scale Deployment shop/api from 3 to 5 replicas"]] == [item["planned"] for item in items[1:3]][::1]
    assert [None, None, None, None, None, True] == [item["effective"] for item in items]
    rows = night.get("/remediations?format=csv").text.splitlines()
    assert ",scale Deployment shop/api from 3 to 5 replicas (replicas 3 → 5)," in rows[-1]
    ids = [item["id"] for item in items]
    assert [items[0]["done"], []] == [night.get(f"/remediations/{one}").json()["done"] for one in (ids[0], ids[1])]


def test_a_table_of_the_night(night: Edge) -> None:
    """Oldest first, in a hundred columns; what did not end well has its id."""
    done = runs("--store", _store(night))
    assert 0 == done.exit_code, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(done.stdout.split())
    for told in (
        "2026-03-01 12:00 succeeded yes restart-api on kubernetes:Deployment/shop/api",
        "- scale Deployment shop/api from 3 to 5 replicas (replicas 3 → 5)",
        "2026-03-01 12:01 succeeded not yet free-connections on postgres:main/orders",
        "2026-03-01 12:02 failed - restart-api",
        "failed: not allowed to patch deployments/scale run 0",
        "- planned: scale Deployment shop/api from 3 to 5 replicas",
        "restart-api (undo of run 01956b3e) on kubernetes:Deployment/shop/api",
        "6 runs since 2026-03-01 00:00 UTC: 3 succeeded, 1 failed, 1 observed, 1 denied; 1 helped",
    ):
        assert told in text, done.stdout


def test_what_helped_is_counted_where_a_run_succeeded(night: Edge) -> None:
    """A night of dry runs and refusals has no share of help."""
    denied = [item for item in night.get("/remediations").json()["items"] if item["state"] == "denied"]
    *_, total = described(denied, datetime(2026, 3, 1, tzinfo=UTC), 9)
    assert "1 run since 2026-03-01 00:00 UTC: 1 denied" == total


def test_the_newest_are_shown_where_there_are_more(night: Edge) -> None:
    """And it is said."""
    done = runs("--store", _store(night), "--most", "2")
    assert ["denied", "succeeded"] == [line.split()[2] for line in done.stdout.splitlines() if line[:2] == "20"]
    assert "only the newest 2 are shown" in done.stdout
    assert "no runs since" in runs("--store", _store(night), "--remediation", "other").stdout


def test_a_running_service_is_asked_page_by_page(night: Edge, tmp_path: Path) -> None:
    """With the token of the environment, or of a file; it has the same to say."""
    with web.serve() as service:
        service.body = night.get("/remediations").content
        done = runs("--json", "--url", service.url, REMEDIATOR_TOKEN="secret")
        assert json.loads(runs("--json", "--store", _store(night)).stdout) == json.loads(done.stdout)
        (asked,) = service.requests
        (tmp_path / "token").write_text("filed\n")
        runs("--url", service.url, "--token-file", str(tmp_path / "token"))
        assert "Bearer filed" == service.requests[-1].headers["Authorization"]
    assert "Bearer secret" == asked.headers["Authorization"]
    assert asked.path.startswith("/remediations?since=2026-03-01T00%3A00%3A00%2B00%3A00&limit=200")


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b'{"detail": "no token"}', "no token; put a token into REMEDIATOR_TOKEN, or name its file"),
        (422, b'{"detail": "wrong"}', "answered 422: wrong"),
        (200, b"<html>", "answered 200 and no JSON: is it a remediator?"),
    ],
)
def test_what_the_service_does_not_answer_is_told(status: int, body: bytes, told: str) -> None:
    """With 2: it cannot be told."""
    with web.serve() as service:
        service.status, service.body = status, body
        done = runs("--url", service.url)
    assert (2, True) == (done.exit_code, told in done.stderr), done.stderr


def test_a_service_that_is_not_there_and_a_store_that_is_not(tmp_path: Path) -> None:
    """Both are named."""
    done = runs("--url", "http://127.0.0.1:9")
    assert (2, "remediator: cannot ask http://127.0.0.1:9: ") == (done.exit_code, done.stderr[:43])
    done = runs("--data", str(tmp_path / "none"))
    store = tmp_path / "none" / "remediator.db"
    assert f"there is no store at {store}; name another one with --config, --data or --store" in done.stderr
