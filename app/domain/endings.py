"""The consequences of a run's end: whether it helped, whether its steps are taken back, whether people hear of it.

Pure rules over stored facts; the engine asks them in the transaction that ends a run.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState

_BAD = frozenset({RunState.FAILED, RunState.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends."""

    state: RunState
    reason: Reason | None
    purpose: Purpose
    acted: bool  # the guards have let it through at least once
    firing: bool  # one of its alerts fires still
    waited: bool = False  # it was deferred before, or had tried a rung
    observes: bool = False  # its mode lets it do nothing


def is_told(ending: Ending) -> bool:
    """Say whether people hear that a run failed, was interrupted, gave up after a wait, or met a broken guard.

    A run that takes another one back tells of itself; a dry run tells no person.
    """
    if ending.purpose is not Purpose.REMEDY or (ending.observes and not ending.acted):
        return False
    gave_up = ending.reason is Reason.GUARD_FAILED or (ending.reason is Reason.MAX_AGE and ending.waited)
    return ending.state in _BAD or (ending.state is RunState.DENIED and gave_up)
