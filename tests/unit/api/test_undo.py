"""POST /remediations/{id}/undo: who may, what it answers, and what the record of both runs says."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.domain.plans import PlannedStep
from app.domain.states import RunState
from app.store.db.schema import step
from app.store.ledger.runs import Run
from tests.support.edge import NOW, TOKENS, Edge, StartEdge, bearer

HEADERS = bearer("secret-of-approver")


def done(edge: Edge, action: str = "kubernetes.scale", state: RunState = RunState.SUCCEEDED) -> Run:
    """A run that has applied one step."""
    made = edge.add_run(state, target_key="kubernetes:Deployment/shop/api", admitted_at=NOW)
    planned = PlannedStep(action=action, summary="scale Deployment shop/api from 3 to 5 replicas")
    row = {"run_id": made.id, "rung": 0, "position": 0, "action": action, "planned": planned.model_dump(mode="json")}

    async def write() -> None:
        async with edge.database.write() as tx:
            await tx.execute(step.insert(), [row | {"state": "succeeded", "tries": 1, "started_at": NOW}])

    edge.run(write())
    return made


def test_an_undo_is_a_run_of_its_own(start_edge: StartEdge) -> None:
    """It names whom it undoes, who asked and why; the undone run names it."""
    edge = start_edge(tokens=TOKENS)
    made = done(edge)
    edge.now = NOW + timedelta(minutes=5)
    response = edge.post(f"/remediations/{made.id}/undo", json={"comment": "too many"}, headers=HEADERS)
    assert 201 == response.status_code
    new = response.json()
    assert ("undo", made.id, "pending", "asked for by the-approver: too many") == (
        new["purpose"],
        new["undoes"],
        new["state"],
        new["message"],
    )
    assert "2026-03-01T12:05:00Z" == new["created_at"] == new["not_before"]
    assert edge.work.is_set()
    shown = edge.get(f"/remediations/{new['id']}", headers=HEADERS).json()
    asked = shown["events"][-1]
    assert ("asked_for", "the-approver", {"comment": "too many"}) == (asked["kind"], asked["actor"], asked["data"])
    undone = edge.get(f"/remediations/{made.id}", headers=HEADERS).json()
    assert ("remedy", None) == (undone["purpose"], undone["undoes"])
    last = undone["events"][-1]
    assert ("undo_recorded", "the-approver", {"run": new["id"]}) == (last["kind"], last["actor"], last["data"])


@pytest.mark.parametrize("role", ["viewer", "alertmanager"])
def test_who_may_not_approve_may_not_undo(start_edge: StartEdge, role: str) -> None:
    """403, and nothing is recorded."""
    edge = start_edge(tokens=TOKENS)
    made = done(edge)
    assert 403 == edge.post(f"/remediations/{made.id}/undo", headers=bearer(f"secret-of-{role}")).status_code
    assert 1 == len(edge.get("/remediations", headers=HEADERS).json()["items"])


def test_what_cannot_be_undone_is_said(edge: Edge) -> None:
    """409 with the reason."""
    nothing, sent, active = edge.add_run(RunState.CANCELLED), done(edge, "http.request"), edge.add_run(RunState.RUNNING)
    made = done(edge)
    first = edge.post(f"/remediations/{made.id}/undo").json()["id"]
    for run_id, words in (
        (nothing.id, "changed nothing: there is nothing to undo"),
        (sent.id, "cannot be undone (http.request)"),
        (active.id, "is running; only a run that has ended can be undone"),
        (made.id, f"is about to be taken back (pending): see run {first}"),
        (first, "is pending; only a run that has ended can be undone"),
    ):
        response = edge.post(f"/remediations/{run_id}/undo")
        assert (409, "conflict") == (response.status_code, response.json()["reason"])
        assert words in response.json()["detail"]


def test_an_unknown_run_cannot_be_undone(edge: Edge) -> None:
    """404, as for reading it."""
    assert 404 == edge.post("/remediations/018f0000-0000-7000-8000-000000000000/undo").status_code


def test_an_undo_that_is_cancelled_can_be_asked_for_again(edge: Edge) -> None:
    """And it counts apart from the runs that answer alerts."""
    made = done(edge)
    first = edge.post(f"/remediations/{made.id}/undo").json()["id"]
    assert "cancelled" == edge.post(f"/remediations/{first}/cancel").json()["state"]
    assert 1 == edge.metric("remediator_taken_back_total", purpose="undo", state="cancelled")
    assert 0 == edge.metric("remediator_runs_total", remediation="restart-api", state="cancelled")
    assert 201 == edge.post(f"/remediations/{made.id}/undo").status_code


def test_undelivered_messages_are_counted(edge: Edge) -> None:
    """Whoever looks at the metrics sees that people do not hear of things."""
    assert "remediator_messages_waiting 0.0" in edge.get("/metrics").text
