"""How long a replica surely holds a run, by its own clock."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from app.domain.errors import LeaseLostError
from app.engine.clock import steady
from app.engine.tenure import Tenure
from tests.support.aio import run

LEASE = timedelta(seconds=1)  # 0.75 without its margin


async def call(tenure: Tenure, stands_still: float, takes: float) -> str:
    """A call in which the whole process stands still, and that sends something after it has waited."""
    async with tenure.limit():
        asyncio.get_running_loop().call_later(0.01, time.sleep, stands_still)
        await asyncio.sleep(takes)
        return "sent"


@pytest.mark.parametrize(
    ("age", "stands_still", "takes", "cuts", "expected"),
    [
        (0.0, 0.0, 0.1, True, "sent"),
        (0.0, 0.3, 0.1, True, "sent"),  # not for long enough
        (0.0, 1.1, 0.1, True, "lost"),
        (0.0, 1.1, 0.1, False, "sent"),  # nobody else could have it
        (0.0, 0.0, 1.1, True, "sent"),  # nothing stood still: what is under way comes to its end
        (0.8, 0.0, 0.1, True, "lost"),  # begun too late
        (0.8, 0.0, 0.1, False, "lost"),
    ],
)
def test_what_is_begun_and_what_is_cut_off(
    age: float, stands_still: float, takes: float, cuts: bool, expected: str
) -> None:
    """Only what is surely ours is begun, and what woke up too late goes no further."""

    async def scenario() -> str:
        tenure = Tenure(LEASE, steady() - age, cuts=cuts)
        try:
            return await call(tenure, stands_still, takes)
        except LeaseLostError:
            return "lost"

    assert expected == run(scenario())


def test_a_renewal_counts_from_before_it_was_asked_for() -> None:
    """The answer may have taken long, and one that is older than the last does not shorten it."""
    tenure = Tenure(LEASE, steady() - 0.8)
    assert tenure.is_over
    tenure.prolong(steady() - 0.1)
    assert not tenure.is_over
    tenure.prolong(steady() - 5)
    assert not tenure.is_over
    assert not Tenure().is_over


def test_somebody_elses_cancellation_stays_one() -> None:
    """A replica that stops, or a run that was lost, ends the call as ever."""

    async def scenario() -> None:
        task = asyncio.create_task(call(Tenure(LEASE, steady()), 0.0, 30.0))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call(Tenure(LEASE, steady()), 0.0, 30.0)

    run(scenario())
