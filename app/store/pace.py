"""Keeps the loop answering while there is much to do in it.

What runs in one process shares one loop, and SQLite's statements never wait (docs/adr/0010). So a hundred runs that
have something to do would do it one after the other before the loop looks at its sockets again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from contextvars import ContextVar

_LONG_SECONDS = 0.003  # of work, after which the loop looks at its sockets
_SHARE = 0.1  # of the time for the work in the background, while there is much that is urgent
_MUCH, _RECENT_SECONDS = 5, 0.02  # so many within so long
_LONGEST_SECONDS = 0.2
_is_in_background: ContextVar[bool] = ContextVar("is_in_background", default=False)


def work_in_background() -> None:
    """Have this task, and those that it creates, ask for their turns; everybody else's work goes before theirs."""
    _is_in_background.set(True)


class Pace:
    """Who works in the background asks first whether it is its turn; who came first has it first."""

    def __init__(self) -> None:
        self._urgent_at = deque[float](maxlen=_MUCH)
        self._resumes_at = -math.inf
        self._begun_at: float | None = None  # of the work since the loop's last look
        self._waiting = deque[asyncio.Future[None]]()
        self._next: asyncio.Handle | None = None  # gives the first of them its turn

    def hurry(self) -> None:
        """Something urgent is done; where that is much, the rest gives way."""
        self._urgent_at.append(time.monotonic())

    @property
    def is_hurried(self) -> bool:
        """Whether much that is urgent was done just now."""
        return len(self._urgent_at) == _MUCH and time.monotonic() - self._urgent_at[0] < _RECENT_SECONDS

    async def turn(self) -> None:
        """Return when it is the caller's turn to work."""
        if not _is_in_background.get() or (not self._waiting and self._has_time()):
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        if self._begun_at is None:  # else the loop's next look does it
            self._arrange()
        await mine

    def _has_time(self) -> bool:
        if self._pause() > 0:
            return False
        if self._begun_at is None:
            self._begin()
            asyncio.get_running_loop().call_soon(self._look)
        return self._begun_at is not None and time.monotonic() - self._begun_at < _LONG_SECONDS

    def _pause(self) -> float:
        return max(self._resumes_at - time.monotonic(), 0) if self.is_hurried else 0

    def _arrange(self) -> None:
        while self._waiting and self._waiting[0].done():  # given up
            self._waiting.popleft()
        if self._waiting and self._next is None:
            if (pause := self._pause()) > 0:
                self._next = asyncio.get_running_loop().call_later(pause, self._give)
            else:
                self._give()

    def _give(self) -> None:
        """The loop does these three one right after the other, so that nobody else's work is counted."""
        self._next = None
        loop = asyncio.get_running_loop()
        loop.call_soon(self._begin)
        if self._waiting and not self._waiting[0].done():
            self._waiting.popleft().set_result(None)
        loop.call_soon(self._look)

    def _begin(self) -> None:
        self._begun_at = time.monotonic()

    def _look(self) -> None:
        now = time.monotonic()
        took = now - (self._begun_at or now)
        self._begun_at = None
        self._resumes_at = now + min(took * (1 / _SHARE - 1), _LONGEST_SECONDS)
        self._arrange()
