"""The service with the action `test.turn` of `dial`, made to stand still at a point as `crashing` does it.

For what is undone: every other action that can be undone needs a cluster.
"""

from __future__ import annotations

import sys

from app.backends.actions import actions
from tests.support import crashing
from tests.support.crashing import Point
from tests.support.dial import Turn

NOWHERE = Point("app.engine.stages.execution.begin", "before", 0, "freeze")


def dialing(point: Point = NOWHERE) -> list[str]:
    """What runs the service, `remediator` put before its arguments."""
    words = [point.function, point.moment, str(point.number), point.what]
    return [sys.executable, "-m", "tests.support.dialing", *words]


if __name__ == "__main__":
    actions()[Turn.name] = Turn()
    crashing.main()
