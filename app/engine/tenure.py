"""How long this replica surely holds a run: by a clock that cannot be set, and shorter than the store says.

The worker makes one for each run that it works on and prolongs it with each renewal; `calling` begins no call beyond
it. A process that was stopped finds it over when it goes on, in the middle of any work.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from app.domain.errors import LeaseLostError
from app.engine.clock import steady

_LONGEST_MARGIN = 2.0  # the clocks of two replicas that follow the store's differ by less


class Tenure:
    """One run's; without a lease it never ends. Where no other replica can take the run over, `cuts` is False."""

    def __init__(self, lease: timedelta | None = None, asked_at: float = 0.0, *, cuts: bool = True) -> None:
        seconds = math.inf if lease is None else lease.total_seconds()
        self._margin = min(_LONGEST_MARGIN, seconds / 4)
        self._seconds = seconds - self._margin
        self._ends = asked_at + self._seconds
        self._cuts = cuts

    @property
    def is_over(self) -> bool:
        """Whether another replica may have the run by now, or soon."""
        return steady() >= self._ends

    def prolong(self, asked_at: float) -> None:
        """Renewed by a request that was sent at this moment; the answer may have taken long."""
        self._ends = max(self._ends, asked_at + self._seconds)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Go around a call: raises LeaseLostError instead of beginning it too late.

        A process that has stood still in the midst of it, and for too long, goes no further: the loop's timers come
        before its next statement. Without such a stop the call comes to its end.
        """
        if self.is_over:
            raise LeaseLostError
        watch = _Watch(self, self._margin)
        if self._cuts:
            watch.look()
        try:
            yield
        except asyncio.CancelledError:
            if watch.has_cut():
                raise LeaseLostError from None
            raise
        finally:
            watch.end()


class _Watch:
    """Looks again and again whether the process has stood still, and cuts the present task off where that was long."""

    def __init__(self, tenure: Tenure, stood_still: float) -> None:
        self._tenure = tenure
        self._stood_still = stood_still
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        self._looked_at = steady()
        self._next: asyncio.TimerHandle | None = None
        self._cut = False

    def look(self) -> None:
        """Look now, and soon again."""
        before, self._looked_at = self._looked_at, steady()
        if self._looked_at - before > self._stood_still and self._tenure.is_over and self._task is not None:
            self._cut = True
            self._task.cancel()
        else:
            self._next = self._loop.call_later(self._stood_still / 4, self.look)

    def has_cut(self) -> bool:
        """Whether the cancellation was its own, and only that."""
        return self._cut and self._task is not None and self._task.uncancel() <= self._cancelling

    def end(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()
