"""Keeps the loop answering while there is much to do in it.

What runs in one process shares one loop, and SQLite's statements never wait (docs/adr/0010). So a hundred runs that
have something to do would do it one after the other before the loop looks at its sockets again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

_LONG_SECONDS = 0.002  # of work, after which the loop looks at its sockets
_SHARE = 0.1  # of the time for everything else, while there is much that is urgent
_MUCH, _RECENT_SECONDS = 5, 0.02  # so many within so long
_LONGEST_SECONDS = 0.2


class Pace:
    """Who has work of its own asks first whether it is its turn."""

    def __init__(self) -> None:
        self._urgent_at = deque[float](maxlen=_MUCH)
        self._resumes_at = -math.inf
        self._begun_at: float | None = None  # of the work since the loop's last look

    def hurry(self) -> None:
        """Something urgent is done; where that is much, the rest gives way."""
        self._urgent_at.append(time.monotonic())

    @property
    def is_hurried(self) -> bool:
        """Whether much that is urgent was done just now."""
        return len(self._urgent_at) == _MUCH and time.monotonic() - self._urgent_at[0] < _RECENT_SECONDS

    async def turn(self) -> None:
        """Return when it is the caller's turn to work."""
        while (wait := self.wait()) is not None:  # noqa: ASYNC110 - what is waited for is the time
            await asyncio.sleep(wait)

    def wait(self) -> float | None:
        """The seconds to wait before asking again; None when it is the caller's turn."""
        now = time.monotonic()
        if self.is_hurried and now < self._resumes_at:
            return self._resumes_at - now
        if self._begun_at is None:
            self._begun_at = now
            asyncio.get_running_loop().call_soon(self._looked)
        elif now - self._begun_at > _LONG_SECONDS:
            return 0
        return None

    def _looked(self) -> None:
        now = time.monotonic()
        took = now - (self._begun_at or now)
        self._resumes_at = now + min(took * (1 / _SHARE - 1), _LONGEST_SECONDS)
        self._begun_at = None
