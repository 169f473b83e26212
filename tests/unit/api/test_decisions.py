"""What people decide about waiting runs: from which states, to which, and what is written with it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import update

from app.domain.errors import LeaseLostError
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.store.audit.chain import Entry
from app.store.db.schema import episode
from app.store.ledger import leases, runs
from app.store.ledger.leases import Claimant
from tests.support.edge import NOW, TOKENS, Edge, StartEdge, bearer

WAITING = {RunState.PENDING, RunState.DEFERRED, RunState.AWAITING_APPROVAL}
ALLOWED = {"approve": {RunState.AWAITING_APPROVAL}, "reject": {RunState.AWAITING_APPROVAL}, "cancel": WAITING}
AFTER = {
    "approve": (RunState.PENDING, None),
    "reject": (RunState.DENIED, Reason.APPROVAL_REJECTED),
    "cancel": (RunState.CANCELLED, Reason.CANCELLED_BY_PERSON),
}
KEYS = ("state", "remediation")
DONE = {"approve": "approved", "reject": "rejected", "cancel": "cancelled"}


@pytest.mark.parametrize("verb", ALLOWED)
@pytest.mark.parametrize("state", RunState)
def test_a_decision_is_possible_in_some_states_only(edge: Edge, verb: str, state: RunState) -> None:
    """Everywhere else 409 says the present state, and nothing changes."""
    made = edge.add_run(state)
    response = edge.post(f"/remediations/{made.id}/{verb}")
    if state in ALLOWED[verb]:
        assert (200, *AFTER[verb]) == (response.status_code, response.json()["state"], response.json()["reason"])
        return
    assert (409, "conflict") == (response.status_code, response.json()["reason"])
    assert f"run {made.id} is {state}; only a run that is" in response.json()["detail"]
    assert edge.get(f"/remediations/{made.id}").json()["state"] == state


@pytest.mark.parametrize("verb", ALLOWED)
def test_a_decision_is_audited_with_its_actor_and_comment(start_edge: StartEdge, verb: str) -> None:
    """The actor is the name of the token."""
    edge = start_edge(tokens=TOKENS)
    made = edge.add_run(RunState.AWAITING_APPROVAL)
    edge.now = NOW + timedelta(minutes=3)
    headers = bearer("secret-of-approver")
    edge.post(f"/remediations/{made.id}/{verb}", json={"comment": "as agreed"}, headers=headers)
    shown = edge.get(f"/remediations/{made.id}", headers=headers).json()
    last = shown["events"][-1]
    assert (DONE[verb], AFTER[verb][0], "the-approver", {"comment": "as agreed"}, "2026-03-01T12:03:00Z") == (
        last["kind"],
        last["state"],
        last["actor"],
        last["data"],
        last["at"],
    )
    assert f"{DONE[verb]} by the-approver: as agreed" == shown["message"]
    assert ("the-approver" if verb == "approve" else None) == shown["approved_by"]


@pytest.mark.parametrize("verb", ["reject", "cancel"])
def test_an_ended_run_gives_everything_back(edge: Edge, verb: str) -> None:
    """Target, lease and place in the queue; and it is counted."""
    made = edge.add_run(RunState.AWAITING_APPROVAL, holds_target=True, target_key="redis:cache/0", lease_owner="other")
    edge.post(f"/remediations/{made.id}/{verb}")
    after = edge.stored(made.id)
    assert after is not None
    assert (False, None, made.lease_epoch + 1) == (after.holds_target, after.lease_owner, after.lease_epoch)
    assert edge.get(f"/remediations/{made.id}").json()["finished_at"] == "2026-03-01T12:00:00Z"
    assert edge.metric("remediator_runs_total", remediation="restart-api", state=AFTER[verb][0]) == 1
    assert "nan" not in edge.get("/metrics").text.lower().replace("nanosec", "")


def test_an_approved_run_is_due_at_once(edge: Edge) -> None:
    """A worker takes it up and all guards decide again."""
    made = edge.add_run(RunState.AWAITING_APPROVAL, not_before=NOW + timedelta(hours=1))
    edge.now = NOW + timedelta(minutes=1)
    edge.post(f"/remediations/{made.id}/approve")
    after = edge.stored(made.id)
    assert after is not None
    assert (RunState.PENDING, edge.now) == (after.state, after.not_before)
    assert edge.work.is_set()


@pytest.mark.parametrize("verb", ["approve", "cancel"])
def test_who_held_the_run_can_write_no_more(edge: Edge, verb: str) -> None:
    """A worker that is deciding about the run at this moment has lost it."""
    state = RunState.AWAITING_APPROVAL
    made = edge.add_run(state)

    async def claim() -> runs.Run:
        async with edge.database.write() as tx:
            claimed = await leases.claim(tx, Claimant("worker", NOW + timedelta(minutes=1)), NOW, 1)
        return claimed.runs[0]

    held = edge.run(claim())
    assert 200 == edge.post(f"/remediations/{made.id}/{verb}").status_code

    async def write() -> None:
        async with edge.database.write() as tx:
            await runs.move(tx, held, RunState.EXPIRED, NOW, Entry())

    with pytest.raises(LeaseLostError):
        edge.run(write())


def test_of_two_people_one_decides(edge: Edge) -> None:
    """The other is told what the run has become."""
    made = edge.add_run(RunState.AWAITING_APPROVAL)

    async def both() -> list[int]:
        verbs = ("approve", "reject")
        answers = await asyncio.gather(*(edge._client.post(f"/remediations/{made.id}/{verb}") for verb in verbs))
        return sorted(answer.status_code for answer in answers)

    assert [200, 409] == edge.run(both())


def test_ending_a_run_that_has_acted_says_whether_it_helped(edge: Edge) -> None:
    """An earlier rung acted and the alert still fires."""
    made = edge.add_run(RunState.AWAITING_APPROVAL, rung=1, admitted_at=NOW)
    assert edge.post(f"/remediations/{made.id}/reject").json()["effective"] is False


def test_a_run_that_joined_another_cannot_be_decided(edge: Edge) -> None:
    """The answer names the one that acts for both."""
    first, second = edge.add_run(), edge.add_run(after=timedelta(minutes=1))

    async def fold() -> None:
        async with edge.database.write() as tx:
            await runs.fold(tx, second, first, NOW)

    edge.run(fold())
    response = edge.post(f"/remediations/{second.id}/cancel")
    assert (409, f"run {second.id} joined run {first.id}; cancel that one") == (
        response.status_code,
        response.json()["detail"],
    )


def test_an_unknown_run_cannot_be_decided(edge: Edge) -> None:
    """404, as for reading it."""
    path = "/remediations/018f0000-0000-7000-8000-000000000000/approve"
    assert 404 == edge.post(path).status_code


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"comment=yes", 400, "the body is not JSON"),
        (b"[]", 400, "not an object"),
        (b'{"coment": "yes"}', 422, 'coment is not known here; did you mean "comment"?'),
        (b'{"comment": 5}', 422, "comment must be a string"),
        (b'{"comment": "\\u0000"}', 422, "NUL"),
        (b'{"comment": "' + b"x" * 1001 + b'"}', 422, "comment is too long"),
        (b" " * 20_000, 413, "larger than"),
    ],
)
def test_a_wrong_comment_decides_nothing(edge: Edge, body: bytes, status: int, words: str) -> None:
    """The run stays as it is."""
    made = edge.add_run(RunState.AWAITING_APPROVAL)
    response = edge.post(f"/remediations/{made.id}/approve", content=body)
    assert status == response.status_code
    assert words in response.json()["detail"]
    after = edge.stored(made.id)
    assert after is not None
    assert after.state is RunState.AWAITING_APPROVAL


def test_an_ended_run_is_retried_while_its_alert_fires(start_edge: StartEdge) -> None:
    """The answer is a new run that names who asked for it; a second one is refused while that works."""
    edge = start_edge(tokens=TOKENS)
    made = edge.add_run(RunState.OBSERVED)
    headers = bearer("secret-of-approver")
    response = edge.post(f"/remediations/{made.id}/retry", json={"comment": "mended"}, headers=headers)
    assert (201, "pending", "restart-api") == (response.status_code, *map(response.json().get, KEYS))
    shown = edge.get(f"/remediations/{response.json()['id']}", headers=headers).json()
    assert ["the-approver", "asked_for"] == [shown["events"][-1]["actor"], shown["events"][-1]["kind"]]
    again = edge.post(f"/remediations/{made.id}/retry", headers=headers)
    assert (409, True) == (again.status_code, "works for the same alert" in again.json()["detail"])
    assert 403 == edge.post(f"/remediations/{made.id}/retry", headers=bearer("secret-of-viewer")).status_code


def test_approving_what_has_resolved_comes_too_late(edge: Edge) -> None:
    """409 says so, and the run ends as the engine would have ended it; a second word changes nothing."""
    made = edge.add_run(RunState.AWAITING_APPROVAL)

    async def resolve() -> None:
        async with edge.database.write() as tx:
            await tx.execute(update(episode).values(closed_at=NOW))

    edge.run(resolve())
    first, second = (edge.post(f"/remediations/{made.id}/{verb}") for verb in ("approve", "reject"))
    assert (409, 409) == (first.status_code, second.status_code)
    assert "resolved before anybody approved" in first.json()["detail"]
    shown = edge.get(f"/remediations/{made.id}").json()
    assert (RunState.CANCELLED, Reason.RESOLVED_BEFORE_START, None) == (
        shown["state"],
        shown["reason"],
        shown.get("approved_by"),
    )


@pytest.mark.parametrize("verb", ALLOWED)
def test_what_this_release_cannot_read_is_left_to_another(edge: Edge, verb: str) -> None:
    """409, and the run stays as it is."""
    made = edge.add_run(RunState.AWAITING_APPROVAL, spec={"name": "from-the-future"})
    response = edge.post(f"/remediations/{made.id}/{verb}")
    assert (409, True) == (response.status_code, "another release" in response.json()["detail"].lower())
    assert RunState.AWAITING_APPROVAL == edge.get(f"/remediations/{made.id}").json()["state"]
