"""The transition table of runs."""

from __future__ import annotations

import itertools

import pytest

from app.domain.states import FINAL_STATES, TRANSITIONS, RunState, may_become

S = RunState
ALLOWED = {
    (S.PENDING, S.DEFERRED),
    (S.PENDING, S.AWAITING_APPROVAL),
    (S.PENDING, S.RUNNING),
    (S.PENDING, S.OBSERVED),
    (S.PENDING, S.DENIED),
    (S.PENDING, S.CANCELLED),
    (S.PENDING, S.SUCCEEDED),
    (S.PENDING, S.FAILED),
    (S.DEFERRED, S.PENDING),
    (S.DEFERRED, S.CANCELLED),
    (S.AWAITING_APPROVAL, S.PENDING),
    (S.AWAITING_APPROVAL, S.DENIED),
    (S.AWAITING_APPROVAL, S.CANCELLED),
    (S.AWAITING_APPROVAL, S.EXPIRED),
    (S.RUNNING, S.VERIFYING),
    (S.RUNNING, S.PENDING),
    (S.RUNNING, S.FAILED),
    (S.RUNNING, S.INTERRUPTED),
    (S.VERIFYING, S.SUCCEEDED),
    (S.VERIFYING, S.FAILED),
    (S.VERIFYING, S.PENDING),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(RunState, RunState)))
def test_exactly_these_transitions_are_allowed(before: RunState, after: RunState) -> None:
    """Every pair of states is decided on purpose."""
    assert ((before, after) in ALLOWED) == may_become(before, after)


def test_every_state_is_in_the_table() -> None:
    """A state that is added must say what follows it."""
    assert set(RunState) == set(TRANSITIONS)


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_final_states_have_no_exits(state: RunState) -> None:
    """What has ended stays as it is."""
    assert state.is_final
    assert not TRANSITIONS[state]


def test_every_state_leads_to_an_end() -> None:
    """From wherever a run is, a final state can be reached."""
    reach = set(FINAL_STATES)
    while True:
        more = {state for state in RunState if TRANSITIONS[state] & reach} - reach
        if not more:
            break
        reach |= more
    assert set(RunState) == reach


def test_only_a_decision_leads_to_running() -> None:
    """Nothing is applied that did not come from pending, where the guards decide."""
    assert [S.PENDING] == [state for state in RunState if may_become(state, S.RUNNING)]
