"""The time for which background work gives way to urgent work: to one answer, to some of a series, to a storm."""

from __future__ import annotations

import math
import time
from collections import deque

_MUCH, _RECENT_SECONDS = 5, 0.05  # so many that are urgent within so long
_SOON_SECONDS, _ANSWERED_SECONDS = 0.2, 0.02  # after another urgent one; so long the rest waits for one of them
_BURST_SECONDS, _BURST_PAUSE_SECONDS = 10.0, 1.0  # a storm is received first; between two pieces of work meanwhile
_QUIET_SECONDS = 0.003  # without anything urgent, after which the work goes on where more may come at once
_WAITED_SECONDS = 1.0  # that the rest waits at most where little is urgent, however often
_SHARE, _LONGEST_SECONDS = 0.1, 0.2  # of the time for it when it never gets quiet; of a pause
_LULL_SECONDS = 1.0  # without much that is urgent, after which another burst may begin


class Urgency:
    """The urgent work of this moment, and the rest, which waits for it."""

    def __init__(self) -> None:
        self._urgent_at = deque[float](maxlen=_MUCH)
        self._hurried_at = -math.inf
        self._burst_begun_at = -math.inf
        self._resumes_at = -math.inf
        self._in_flight, self._follows = 0, False  # urgent work that is not done yet; soon after another
        self._answered_at, self._awaited_since = -math.inf, -math.inf  # the last answer; the next one, by the rest
        self._is_series, self._worked_at = False, -math.inf  # one comes right after each answer; the rest's last turn
        self._waited_since = -math.inf  # somebody of the rest, for the first turn of any of those

    def begin(self) -> None:
        """Something urgent has come."""
        now = time.monotonic()
        if not self._in_flight or not self._follows:
            last = self._urgent_at[-1] if self._in_flight else self._answered_at
            self._awaited_since, self._follows = now, now - last < _SOON_SECONDS
            self._is_series = now - max(last, self._worked_at) < _QUIET_SECONDS  # later ones came at once
        self._in_flight += 1
        self._urgent_at.append(now)
        if self.is_much:
            if now - self._hurried_at > _LULL_SECONDS:
                self._burst_begun_at = now
            self._hurried_at = now

    def end(self) -> None:
        """It is done."""
        self._in_flight -= 1
        self._answered_at = time.monotonic()

    def wait(self) -> None:
        """The first of the rest waits from now on."""
        self._waited_since = time.monotonic()

    def work(self, took: float, *, gave_way: bool) -> None:
        """Count seconds of work; say whether it was background work, which gives way."""
        now = time.monotonic()
        if not self._is_answered:
            self._awaited_since = min(self._awaited_since + took, now)  # to work is not to wait
        elif gave_way:
            self._awaited_since = now  # and those that are left are answered first
        if gave_way:
            self._worked_at = self._waited_since = now
            pause = _BURST_PAUSE_SECONDS if self._is_burst else min(took * (1 / _SHARE - 1), _LONGEST_SECONDS)
            self._resumes_at = now + pause

    @property
    def is_much(self) -> bool:
        """Whether much that is urgent came just now."""
        return len(self._urgent_at) == _MUCH and time.monotonic() - self._urgent_at[0] < _RECENT_SECONDS

    def pause(self) -> float:
        """Return the seconds until the rest may work, or should ask again: urgent work may end sooner."""
        until = self._until_received() if self.is_much else self._until_answered()
        return min(max(until - time.monotonic(), 0), _RECENT_SECONDS)

    def _until_received(self) -> float:
        if self._is_burst:
            return self._resumes_at
        return min(self._resumes_at, self._urgent_at[-1] + _QUIET_SECONDS)

    def _until_answered(self) -> float:
        """Where little is urgent. An answer takes several rounds of the loop, each with its piece of work."""
        until = -math.inf
        if self._in_flight and self._follows and not self._is_answered:
            until = self._awaited_since + _ANSWERED_SECONDS
        elif self._is_series:
            until = min(self._answered_at + _QUIET_SECONDS, self._worked_at + _ANSWERED_SECONDS)
        return min(until, self._waited_since + _WAITED_SECONDS)

    @property
    def _is_answered(self) -> bool:
        """Whether it is the rest's turn before the next answer."""
        return self._answered_at >= self._awaited_since

    @property
    def _is_burst(self) -> bool:
        return time.monotonic() - self._burst_begun_at < _BURST_SECONDS
