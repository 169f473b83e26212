"""What stands in a run's way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.domain.obstacles import Breaker, BreakerState
from tests.support.alerts import NOW

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("breaker", "state"),
    [
        (Breaker(2), BreakerState.CLOSED),
        (Breaker(3, NOW - SECOND), BreakerState.OPEN),
        (Breaker(3, NOW - SECOND, NOW + SECOND), BreakerState.OPEN),
        (Breaker(3, NOW - SECOND, NOW), BreakerState.HALF_OPEN),
        (Breaker(3, NOW - SECOND, None, "run-1"), BreakerState.HALF_OPEN),
    ],
)
def test_a_breaker_is_half_open_once_a_trial_is_due_or_under_way(breaker: Breaker, state: BreakerState) -> None:
    """At the very moment of the trial it is due."""
    assert state == breaker.state(NOW)


def test_the_metric_rises_with_what_is_held_back() -> None:
    """Closed is 0, open is 2."""
    assert [0, 1, 2] == [state.rank for state in (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)]
