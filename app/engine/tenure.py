"""How long this replica surely holds a run: by a clock that nobody sets, and shorter than the store says.

The worker makes one for each run that it works on and prolongs it with each renewal; `execution` begins no call beyond
it. A process that was stopped, or cut off from the store, finds it over when it goes on, whatever it had in its hands.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from app.domain.errors import LeaseLostError
from app.engine.timekeeping import steady

_LONGEST_MARGIN = 2.0  # the clocks of two replicas that follow the store's differ by less


class Tenure:
    """One run's; without a lease it never ends. Where no other replica can take the run over, `cuts` is False."""

    def __init__(self, lease: timedelta | None = None, asked_at: float = 0.0, *, cuts: bool = True) -> None:
        self._seconds = math.inf
        self._cuts = cuts
        if lease is not None:
            seconds = lease.total_seconds()
            self._seconds = seconds - min(_LONGEST_MARGIN, seconds / 4)
        self._ends = asked_at + self._seconds
        self._limits: set[asyncio.Timeout] = set()

    @property
    def is_over(self) -> bool:
        """Whether another replica may have the run by now, or soon."""
        return steady() >= self._ends

    def prolong(self, asked_at: float) -> None:
        """Renewed by a request that was sent at this moment; the answer may have taken long."""
        self._ends = max(self._ends, asked_at + self._seconds)
        for limit in self._limits:
            self._set(limit)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Around a call: raises LeaseLostError instead of beginning it too late, and cuts it off when its time is over.

        What woke up late in the middle of the call goes no further: the loop's timers come before its next statement.
        """
        if self.is_over:
            raise LeaseLostError
        try:
            async with asyncio.timeout(None) as limit:
                self._set(limit)
                self._limits.add(limit)
                yield
        except TimeoutError:
            if limit.expired():
                raise LeaseLostError from None
            raise
        finally:
            self._limits.discard(limit)

    def _set(self, limit: asyncio.Timeout) -> None:
        if self._cuts and self._ends < math.inf and not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time() + self._ends - steady())
