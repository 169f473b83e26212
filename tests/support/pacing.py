"""Work that takes its time on the clock that `app.store.db.pace` and `urgency` go by, and none of the machine's."""

from __future__ import annotations

import time

import pytest

from app.store.db import pace, urgency
from app.store.db.pace import Pace


class Worked:
    """The machine's steady clock, and what was worked besides."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        for module in (pace, urgency):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        """Seconds, as `time.monotonic`."""
        return time.monotonic() + self.seconds


def work(seconds: float) -> None:
    """Have so much time pass without anybody else's having a turn."""
    clock = vars(pace)["time"]
    assert isinstance(clock, Worked), "the test needs the fixture `worked`"
    clock.seconds += seconds


def urgent(turns: Pace, count: int = 1) -> None:
    """So many urgent things one after the other, each done at once."""
    for _ in range(count):
        with turns.urgent():
            pass
