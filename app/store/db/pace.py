"""Keeps the loop answering while there is much to do in it.

One process has one loop, and SQLite's statements never wait (docs/adr/0010). So a hundred runs would work one after the
other before the loop looks at its sockets again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum, auto
from typing import TypeVar

from app.store.db.urgency import Urgency

_LONG_SECONDS = 0.003  # of work, after which the loop looks at its sockets
_AT_ONCE = 8  # turns, if they are short enough; each look of the loop costs as much as a short one
_ANSWER_SECONDS = 0.01  # the same for an answer that a client waits for, unless more is urgent
T = TypeVar("T")


class _Manner(Enum):
    FREE = auto()  # whenever it has something to do
    PATIENT = auto()  # in turns, and when nothing is urgent
    STEADY = auto()  # in turns


_manner: ContextVar[_Manner] = ContextVar("manner", default=_Manner.FREE)


def work_in_background() -> None:
    """Make this task, and the tasks that it creates, ask for their turns; all other work goes before theirs."""
    _manner.set(_Manner.PATIENT)


def work_without_pause() -> None:
    """Make this task wait for its turns only: its answers from other systems would be old when a storm is over."""
    if _manner.get() is _Manner.PATIENT:
        _manner.set(_Manner.STEADY)


def in_background() -> bool:
    """Say whether this task works in the background, and no request waits for its answer."""
    return _manner.get() is not _Manner.FREE


class Pace:
    """Gives turns to background tasks in the order in which they ask."""

    def __init__(self) -> None:
        self._urgency = Urgency()
        self._begun_at: float | None = None  # of the work since the loop's last look
        self._steady = deque[asyncio.Future[None]]()  # tasks that wait for a turn
        self._patient = deque[asyncio.Future[None]]()  # tasks after those, which wait for the end of a pause
        self._timer: asyncio.TimerHandle | None = None  # of the end of a pause
        self._is_given = False  # a turn, which begins when the loop comes to it
        self._is_patient = False  # the task that works, or did last
        self._returned = 0  # of the tasks with a turn, without the time for it yet

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """Something urgent is done in this block; where it is much, or one follows another, the rest gives way."""
        self._urgency.begin()
        try:
            yield
        finally:
            self._urgency.end()
            if self._timer is not None and not self.is_hurried:
                self._timer.cancel()
                self._resume()

    @property
    def is_hurried(self) -> bool:
        """Whether much that is urgent was done just now."""
        return self._urgency.is_much

    async def turn(self, *, pauses: bool = True) -> None:
        """Return when it is the caller's turn to work; without `pauses` as `work_without_pause` has it."""
        manner = _manner.get()
        if manner is _Manner.FREE:
            return
        pauses = pauses and manner is _Manner.PATIENT
        if pauses and not self._patient:
            self._urgency.wait()
        if not self._steady and not (pauses and self._patient) and self._has_time(pauses=pauses):
            return
        queue = self._patient if pauses else self._steady
        place = len(queue)
        while True:
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.insert(place, mine)
            self._arrange()
            await mine
            if self._begun_at is not None and time.monotonic() - self._begun_at < _LONG_SECONDS:
                return
            # Those before have taken the time. First of all the next time, but for who came back already.
            place, self._returned = self._returned, self._returned + 1

    async def collect(self, pieces: Iterable[T]) -> list[T]:
        """All pieces of an answer that takes long to make; the loop looks at its sockets in between."""
        made, begun = [], time.monotonic()
        for piece in pieces:
            made.append(piece)
            if time.monotonic() - begun > (_LONG_SECONDS if self.is_hurried else _ANSWER_SECONDS):
                await asyncio.sleep(0)
                begun = time.monotonic()
        return made

    def _has_time(self, *, pauses: bool) -> bool:
        if self._is_given or (pauses and self._urgency.pause() > 0):
            return False
        if self._begun_at is not None:
            has_time = time.monotonic() - self._begun_at < _LONG_SECONDS
            self._is_patient = self._is_patient or (has_time and pauses)
            return has_time
        self._is_patient = pauses
        self._begin()
        asyncio.get_running_loop().call_soon(self._look)
        return True

    def _arrange(self) -> None:
        """See to it that the next task gets its turn, unless a working task does that at its end."""
        if self._begun_at is not None or self._is_given:
            return
        if self._timer is not None:
            if not self._steady:
                return
            self._timer.cancel()
            self._timer = None
        for queue in (self._steady, self._patient):
            while queue and queue[0].done():  # given up
                queue.popleft()
        if self._steady or self._patient:
            pause = 0 if self._steady else self._urgency.pause()
            if pause > 0:
                self._timer = asyncio.get_running_loop().call_later(pause, self._resume)
            else:
                self._give(self._steady or self._patient)

    def _resume(self) -> None:
        self._timer = None
        self._arrange()

    def _give(self, queue: deque[asyncio.Future[None]]) -> None:
        """Give a turn to the first and, should that take little time, to some more.

        The loop does all this one right after the other, so that no other work is counted.
        """
        loop = asyncio.get_running_loop()
        self._is_given, self._is_patient, self._returned = True, queue is self._patient, 0
        loop.call_soon(self._begin)
        for _ in range(min(len(queue), _AT_ONCE)):
            if not (first := queue.popleft()).done():
                first.set_result(None)
        loop.call_soon(self._look)

    def _begin(self) -> None:
        self._is_given = False
        self._begun_at = time.monotonic()

    def _look(self) -> None:
        took = time.monotonic() - self._begun_at if self._begun_at is not None else 0
        self._begun_at = None
        self._urgency.work(took, gave_way=self._is_patient)
        self._arrange()
