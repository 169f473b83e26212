"""Who hears how a run ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.endings import Ending, is_told
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import FINAL_STATES, RunState

FAILED = Ending(RunState.FAILED, Reason.ACTION_FAILED, Purpose.REMEDY, acted=True, firing=True)
DENIED = replace(FAILED, state=RunState.DENIED, reason=Reason.OUT_OF_SCOPE, acted=False)


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
@pytest.mark.parametrize("waited", [True, False])
def test_people_hear_of_what_failed_or_was_interrupted(state: RunState, *, waited: bool) -> None:
    """However long it had waited; all other ends are no news by themselves."""
    assert is_told(replace(FAILED, state=state, waited=waited)) == (state in {RunState.FAILED, RunState.INTERRUPTED})


@pytest.mark.parametrize(
    ("reason", "waited", "told"),
    [
        (Reason.MAX_AGE, True, True),
        (Reason.MAX_AGE, False, False),
        (Reason.OUT_OF_SCOPE, True, False),
        (Reason.GUARD_FAILED, False, True),
        (Reason.GUARD_FAILED, True, True),
    ],
)
def test_people_hear_of_a_denial_that_they_would_not_expect(reason: Reason, *, waited: bool, told: bool) -> None:
    """A run that waited until it was too late, and a guard that is broken."""
    assert told == is_told(replace(DENIED, reason=reason, waited=waited))


@pytest.mark.parametrize("state", [RunState.EXPIRED, RunState.CANCELLED])
def test_the_reason_alone_is_no_news(state: RunState) -> None:
    """Only a denial gives up."""
    assert not is_told(replace(DENIED, state=state, reason=Reason.MAX_AGE, waited=True))


@pytest.mark.parametrize("purpose", [Purpose.UNDO, Purpose.REVERT])
def test_what_takes_a_run_back_tells_of_itself(purpose: Purpose) -> None:
    """Not a second time here."""
    assert not is_told(replace(FAILED, purpose=purpose))


def test_a_dry_run_tells_nobody() -> None:
    """Unless the run had acted before its mode was lowered."""
    assert not is_told(replace(FAILED, acted=False, observes=True))
    assert is_told(replace(FAILED, acted=True, observes=True))
    assert is_told(replace(FAILED, acted=False))
