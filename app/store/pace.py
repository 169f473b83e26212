"""Keeps the loop answering while there is much to do in it.

What runs in one process shares one loop, and SQLite's statements never wait (docs/adr/0010). So a hundred runs that
have something to do would do it one after the other before the loop looks at its sockets again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TypeVar

_LONG_SECONDS = 0.003  # of work, after which the loop looks at its sockets
_ANSWER_SECONDS = 0.01  # the same for an answer that somebody waits for, unless more is urgent
_MUCH, _RECENT_SECONDS = 5, 0.05  # so many that are urgent within so long
_BURST_SECONDS, _BURST_PAUSE_SECONDS = 10.0, 0.6  # a storm is received first; between two pieces of work meanwhile
_QUIET_SECONDS = 0.003  # without anything urgent, after which the work goes on when the storm does not end
_SHARE, _LONGEST_SECONDS = 0.1, 0.2  # of the time for it when it never gets quiet; of a pause
_LULL_SECONDS = 1.0  # without anything urgent, after which another burst may begin
T = TypeVar("T")
_is_in_background: ContextVar[bool] = ContextVar("is_in_background", default=False)


def work_in_background() -> None:
    """Have this task, and those that it creates, ask for their turns; everybody else's work goes before theirs."""
    _is_in_background.set(True)


class Pace:
    """Who works in the background asks first whether it is its turn; who came first has it first."""

    def __init__(self) -> None:
        self._urgent_at = deque[float](maxlen=_MUCH)
        self._burst_begun_at = -math.inf
        self._resumes_at = -math.inf
        self._begun_at: float | None = None  # of the work since the loop's last look
        self._waiting = deque[asyncio.Future[None]]()
        self._next: asyncio.Handle | None = None  # begins the work of the first of them

    def hurry(self) -> None:
        """Something urgent is done; where that is much, the rest gives way."""
        now = time.monotonic()
        if not self._urgent_at or now - self._urgent_at[-1] > _LULL_SECONDS:
            self._burst_begun_at = now
        self._urgent_at.append(now)

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
        self._arrange()
        await mine

    async def collect(self, pieces: Iterable[T]) -> list[T]:
        """All pieces of an answer that takes long to make; the loop looks at its sockets in between."""
        made, begun = [], time.monotonic()
        for piece in pieces:
            made.append(piece)
            if time.monotonic() - begun > (_LONG_SECONDS if self.is_hurried else _ANSWER_SECONDS):
                await asyncio.sleep(0)
                begun = time.monotonic()
        return made

    def _has_time(self) -> bool:
        if self._begun_at is not None:
            return time.monotonic() - self._begun_at < _LONG_SECONDS
        if self._next is not None or self._pause() > 0:
            return False
        self._begin()
        asyncio.get_running_loop().call_soon(self._look)
        return True

    def _pause(self) -> float:
        """Seconds until somebody may work."""
        if not self.is_hurried:
            return 0
        until = self._resumes_at
        if not self._is_burst:
            until = min(until, self._urgent_at[-1] + _QUIET_SECONDS)
        return max(until - time.monotonic(), 0)

    @property
    def _is_burst(self) -> bool:
        return time.monotonic() - self._burst_begun_at < _BURST_SECONDS

    def _arrange(self) -> None:
        """See to it that the first who waits has its turn, unless somebody works whose end does that."""
        while self._waiting and self._waiting[0].done():  # given up
            self._waiting.popleft()
        if self._waiting and self._begun_at is None and self._next is None:
            self._next = asyncio.get_running_loop().call_later(self._pause(), self._give)

    def _give(self) -> None:
        """The loop does these three one right after the other, so that nobody else's work is counted."""
        self._next = None
        if self._pause() > 0 or not self._waiting or self._waiting[0].done():
            self._arrange()
            return
        loop = asyncio.get_running_loop()
        self._next = loop.call_soon(self._begin)
        self._waiting.popleft().set_result(None)
        loop.call_soon(self._look)

    def _begin(self) -> None:
        self._next = None
        self._begun_at = time.monotonic()

    def _look(self) -> None:
        now = time.monotonic()
        took = now - (self._begun_at or now)
        self._begun_at = None
        pause = _BURST_PAUSE_SECONDS if self._is_burst else min(took * (1 / _SHARE - 1), _LONGEST_SECONDS)
        self._resumes_at = now + pause
        self._arrange()
