"""What the catalog's routes and the metrics say about each remediation's record, and its standing set by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.event import listen

from app.domain.findings import Finding, Report, Result
from app.domain.obstacles import Hold
from app.domain.remediation import Mode
from app.domain.states import RunState
from app.store.db.database import Database
from app.store.db.schema import breaker, event
from app.store.gates import pauses
from app.store.gates.pauses import Held
from app.store.ledger import episodes
from app.store.queries import track_record
from tests.support.edge import NOW, TOKENS, Edge, bearer, make_episode

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EARNING = """\
remediations:
  - name: restart-api
    summary: Restart the API.
    matchers: [alertname="Down"]
    mode: approve
    earn: {approve_after: 3}
    target: {kubernetes: {kind: Deployment, namespace: shop, name: api}}
    steps: [{action: kubernetes.rollout_restart}]
    verify: [{check: kubernetes.rollout_complete}]
"""


def ended(edge: Edge, state: RunState, at: timedelta, **columns: Any) -> str:
    """A run that ended at `NOW + at`."""
    return edge.add_run(state, after=at, finished_at=NOW + at, **columns).id


def test_the_record_of_a_remediation(edge: Edge) -> None:
    """Runs by state, success, effect and times, of the last 30 days and of this remediation alone."""
    for hours, minutes in ((1, 60), (2, 5), (3, 10)):
        resolved = NOW - DAY + hours * HOUR + timedelta(minutes=minutes)
        ended(edge, RunState.SUCCEEDED, -DAY + hours * HOUR, effective=True, resolved_at=resolved)
    ended(edge, RunState.SUCCEEDED, -DAY, effective=False)
    ended(edge, RunState.SUCCEEDED, -HOUR)
    ended(edge, RunState.DENIED, -DAY)
    ended(edge, RunState.FAILED, -31 * DAY, effective=False)
    ended(edge, RunState.SUCCEEDED, -DAY, purpose="undo")
    ended(edge, RunState.FAILED, -DAY, remediation="another")
    edge.add_run(RunState.RUNNING, after=-timedelta(minutes=30))
    last = ended(edge, RunState.FAILED, -timedelta(minutes=20), effective=False)

    found = edge.get("/catalog/restart-api").json()["record"]
    assert {"succeeded": 5, "denied": 1, "failed": 1} == {key: count for key, count in found["states"].items() if count}
    assert (5 / 6, 3, 2, 3 / 5) == tuple(
        found[key] for key in ("success_rate", "effective", "ineffective", "effectiveness")
    )
    assert (600.0, 3600.0) == (found["median_seconds"], found["p90_seconds"])
    assert (last, "failed") == (found["last_run"]["id"], found["last_run"]["state"])
    (listed,) = edge.get("/catalog").json()["items"]
    assert (7, 5 / 6, 3 / 5) == tuple(listed["record"][key] for key in ("runs", "success_rate", "effectiveness"))


def test_an_alert_that_ended_before_it_began_took_no_time(edge: Edge) -> None:
    """By the clocks of two machines."""
    ended(edge, RunState.SUCCEEDED, -HOUR, effective=True, resolved_at=NOW - 2 * HOUR)
    assert 0 == edge.get("/catalog/restart-api").json()["record"]["median_seconds"]


def test_alerts_that_are_back_within_a_day_are_counted(edge: Edge) -> None:
    """Each return once; one after a day is none."""
    made = ended(edge, RunState.SUCCEEDED, -5 * DAY, effective=True, resolved_at=NOW - 5 * DAY + HOUR)

    async def add(*after: timedelta) -> None:
        async with edge.database.write() as tx:
            (first,) = await episodes.of_run(tx, made)
            await episodes.change(tx, [replace(first, closed_at=NOW - 5 * DAY + HOUR)])
            for since in after:
                again = replace(make_episode(first.labels, NOW - 5 * DAY + since), identity=first.identity)
                await episodes.create(tx, [replace(again, closed_at=again.starts_at)])

    edge.run(add(2 * HOUR, 25 * HOUR, 26 * HOUR, 50 * HOUR))
    assert 2 == edge.get("/catalog/restart-api").json()["record"]["recurrences"]


def test_breaker_and_pauses_are_shown(edge: Edge) -> None:
    """In both routes, and as metrics; a breaker whose trial is due is half open."""

    async def stop() -> None:
        async with edge.database.write() as tx:
            opened = {"remediation": "restart-api", "failures": 3, "opened_at": NOW, "trial_at": NOW + HOUR}
            await tx.execute(breaker.insert(), [opened])
            await pauses.put(tx, Held("all"), Hold("all", "ada", "release", None), NOW)
            await pauses.put(tx, Held("remediation", "another"), Hold("remediation", "ada", "no", None), NOW)

    assert 'remediator_breaker_state{remediation="restart-api"} 0.0' in edge.get("/metrics").text.splitlines()
    edge.run(stop())
    found = edge.get("/catalog/restart-api").json()["record"]
    assert ("open", 3) == (found["breaker"]["state"], found["breaker"]["failures"])
    assert [("all", "ada", "release")] == [(one["scope"], one["holder"], one["why"]) for one in found["pauses"]]
    assert 'remediator_breaker_state{remediation="restart-api"} 2.0' in edge.get("/metrics").text.splitlines()
    edge.now = NOW + 2 * HOUR
    listed = edge.get("/catalog").json()["items"][0]["record"]
    assert ("half_open", True) == (listed["breaker"], listed["paused"])
    assert 'remediator_breaker_state{remediation="restart-api"} 1.0' in edge.get("/metrics").text.splitlines()


def test_the_catalog_is_shown_while_the_store_is_away(start_edge: Callable[..., Edge], tmp_path: Path) -> None:
    """Without records; the gauges are no numbers then."""
    edge = start_edge(database=Database(f"sqlite:///{tmp_path}/empty.db"))
    assert [None] == [item["record"] for item in edge.get("/catalog").json()["items"]]
    assert edge.get("/catalog/restart-api").json()["record"] is None
    assert 'remediator_breaker_state{remediation="restart-api"} NaN' in edge.get("/metrics").text.splitlines()


def test_the_preflight_is_shown(edge: Edge) -> None:
    """Its result in the list, its findings with the remediation."""
    finding = Finding(subject="the cluster", result=Result.CANNOT, message="not allowed")
    edge.reports["restart-api"] = Report.of("restart-api", NOW, [finding])
    assert "cannot" == edge.get("/catalog").json()["items"][0]["preflight"]
    shown = edge.get("/catalog/restart-api").json()["preflight"]
    assert ("cannot", [{"subject": "the cluster", "result": "cannot", "message": "not allowed"}]) == (
        shown["result"],
        shown["findings"],
    )


@pytest.fixture
def earning(start_edge: Callable[..., Edge]) -> Edge:
    """An edge whose remediation earns its mode, up to approve."""
    edge = start_edge(tokens=TOKENS)
    edge.catalog_file.write_text(EARNING, encoding="utf-8")
    assert 200 == edge.post("/-/reload", headers=bearer("secret-of-admin")).status_code
    return edge


def set_standing(edge: Edge, role: str = "admin", **body: Any) -> Any:
    """Ask for another standing."""
    return edge.post("/catalog/restart-api/standing", json=body, headers=bearer(f"secret-of-{role}"))


def test_an_admin_sets_the_standing(earning: Edge) -> None:
    """It is audited with who and why, shown, and a metric."""
    viewer = bearer("secret-of-viewer")
    before = earning.get("/catalog/restart-api", headers=viewer).json()["record"]["standing"]
    assert ("observe", 0) == (before["mode"], before["good"])

    answer = set_standing(earning, mode="approve", comment="seen enough")
    assert (200, "approve") == (answer.status_code, answer.json()["mode"])
    assert "approve" == earning.get("/catalog", headers=viewer).json()["items"][0]["record"]["earned"]
    assert 'remediator_earned_mode{remediation="restart-api"} 1.0' in earning.get("/metrics").text.splitlines()

    async def audited() -> list[tuple[str, str]]:
        async with earning.database.read() as tx:
            query = select(event.c.actor, event.c.message).where(event.c.run_id == "catalog/restart-api")
            return [(row.actor, row.message) for row in await tx.execute(query.order_by(event.c.id))]

    assert [
        ("remediator", "begins at observe; it may come to approve"),
        ("the-admin", "set from observe to approve by the-admin: seen enough"),
    ] == earning.run(audited())


@pytest.mark.parametrize(
    ("role", "body", "status"),
    [
        ("approver", {"mode": "approve"}, 403),
        ("viewer", {"mode": "approve"}, 403),
        ("admin", {"mode": "auto"}, 409),  # above its own mode
        ("admin", {"mode": "never"}, 422),
        ("admin", {}, 422),
        ("admin", {"mode": "observe", "comment": "a\0b"}, 422),
        ("admin", {"mode": "observe", "more": 1}, 422),
    ],
)
def test_who_may_not_and_what_cannot_be(earning: Edge, role: str, body: dict[str, Any], status: int) -> None:
    """Nothing is changed then."""
    assert status == set_standing(earning, role, **body).status_code
    listed = earning.get("/catalog", headers=bearer("secret-of-viewer")).json()["items"][0]
    assert "observe" == listed["record"]["earned"]


def test_a_remediation_without_earn_has_no_standing(edge: Edge) -> None:
    """409 says so; an unknown one is not found."""
    answer = edge.post("/catalog/restart-api/standing", json={"mode": "observe"})
    assert (409, True) == (answer.status_code, "no `earn`" in answer.json()["detail"])
    assert 404 == edge.post("/catalog/nothing/standing", json={"mode": "observe"}).status_code


def test_a_rejection_counts_against_the_remediation(earning: Edge) -> None:
    """In the request's own transaction; a second one in a row costs a step."""
    set_standing(earning, mode="approve")
    remediation = earning.services.catalog.current.remediations["restart-api"]
    for _ in range(2):
        waiting = earning.add_run(RunState.AWAITING_APPROVAL, spec=remediation.stored)
        answer = earning.post(f"/remediations/{waiting.id}/reject", headers=bearer("secret-of-approver"))
        assert 200 == answer.status_code
    listed = earning.get("/catalog", headers=bearer("secret-of-viewer")).json()["items"][0]
    assert Mode.OBSERVE == listed["record"]["earned"]


def test_a_trial_that_a_person_ends_is_over(edge: Edge) -> None:
    """Its first rung acted and did not help; the breaker must not wait for it for ever."""
    waiting = edge.add_run(RunState.AWAITING_APPROVAL, rung=1, admitted_at=NOW, started_at=NOW)

    async def write() -> None:
        async with edge.database.write() as tx:
            trial = {"remediation": "restart-api", "failures": 3, "opened_at": NOW, "trial_at": NOW}
            await tx.execute(breaker.insert(), [trial | {"trial": waiting.id}])

    edge.run(write())
    assert 200 == edge.post(f"/remediations/{waiting.id}/reject").status_code
    found = edge.get("/catalog/restart-api").json()["record"]["breaker"]
    assert ("open", 4, None) == (found["state"], found["failures"], found["trial"])
    assert edge.metric("remediator_runs_ineffective_total", remediation="restart-api") == 1


def test_records_are_read_from_their_index(edge: Edge) -> None:
    """The rows of runs are wide: a month of them must not be read for a page of numbers."""

    async def plans() -> list[str]:
        since, asked = NOW - 30 * DAY, list[tuple[str, Any]]()

        def remember(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            asked.append((statement, values))

        listen(edge.database.engine, "before_cursor_execute", remember)
        async with edge.database.read() as tx:
            await track_record.tallies(tx, ["restart-api", "another"], since)
            await track_record.times_to_resolve(tx, "restart-api", since)
            await track_record.recurrences(tx, "restart-api", since)
            rows = [
                await tx.run_sync(Connection.exec_driver_sql, f"EXPLAIN QUERY PLAN {statement}", values)
                for statement, values in asked[:]
                if statement.startswith("SELECT")
            ]
            return ["; ".join(row.detail for row in each) for each in rows]

    found = edge.run(plans())
    assert 3 == len(found)
    assert [] == [plan for plan in found if "USING COVERING INDEX ix_run_record" not in plan or "SCAN" in plan]
