"""The states of a run and the one table of transitions between them; the store refuses the rest."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run is on its way."""

    PENDING = "pending"  # recorded, without a decision yet (or the next rung is to be decided)
    DEFERRED = "deferred"  # refused for now; decided again when `not_before` has come
    AWAITING_APPROVAL = "awaiting_approval"  # planned and allowed, a person must say yes
    RUNNING = "running"  # steps are being applied
    VERIFYING = "verifying"  # applied; checks and the alert itself are being watched
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    OBSERVED = "observed"  # dry run: decided, not applied
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    INTERRUPTED = "interrupted"  # died in a step that must not be repeated; a person must look

    @property
    def is_final(self) -> bool:
        """Whether nothing follows this state."""
        return not TRANSITIONS[self]


_S = RunState
# running/verifying -> pending: the next rung of the same run is decided by the guards anew.
TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    _S.PENDING: frozenset(
        {_S.DEFERRED, _S.AWAITING_APPROVAL, _S.RUNNING, _S.OBSERVED, _S.DENIED, _S.CANCELLED, _S.SUCCEEDED, _S.FAILED}
    ),
    _S.DEFERRED: frozenset({_S.PENDING, _S.CANCELLED}),
    _S.AWAITING_APPROVAL: frozenset({_S.PENDING, _S.DENIED, _S.CANCELLED, _S.EXPIRED}),
    _S.RUNNING: frozenset({_S.VERIFYING, _S.PENDING, _S.FAILED, _S.INTERRUPTED}),
    _S.VERIFYING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.PENDING}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.OBSERVED: frozenset(),
    _S.DENIED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.INTERRUPTED: frozenset(),
}

FINAL_STATES = frozenset(state for state in RunState if state.is_final)


def may_become(before: RunState, after: RunState) -> bool:
    """Whether the table allows going from `before` to `after`."""
    return after in TRANSITIONS[before]
