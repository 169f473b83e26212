"""An action that can be undone, on a target that is there at once: a number in a file, with the history of its values.

It keeps to the contract as kubernetes.scale does: it goes from the planned number to the wanted one and from no other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.backends.action import Action, Context
from app.backends.actions import actions
from app.domain.errors import PermanentError
from app.domain.model import JsonObject, Value
from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk
from tests.support.engine import remediation


@dataclass(frozen=True)
class Dial:
    """The target."""

    file: Path

    def turn(self, value: int) -> None:
        """Set it, as an action or anybody else does."""
        with self.file.open("a") as file:
            file.write(f"{value}\n")

    @property
    def history(self) -> list[int]:
        """All values that it has had."""
        return [int(line) for line in self.file.read_text().split()]

    @property
    def value(self) -> int:
        """The value that it has now."""
        return self.history[-1]


class TurnParams(Value):
    """Where to."""

    file: str
    to: int | None = None
    by: int = 0
    dangerous: bool = False


class Turn(Action[TurnParams]):
    """Turns a dial."""

    name = "test.turn"
    summary = "Turn a dial."
    Params = TurnParams
    risk = Risk.DISRUPTIVE
    repeatable = True
    can_undo = True
    drifts = frozenset({"planned_at"})

    async def plan(self, context: Context, params: TurnParams) -> PlannedStep:
        """Read the number."""
        now = Dial(Path(params.file)).value
        goal = now + params.by if params.to is None else params.to
        planned = self.planned(
            params,
            summary=f"turn from {now} to {goal}",
            before={"value": now, "planned_at": context.now.isoformat()},
            desired={"value": goal},
            changes=now != goal,
        )
        return planned.model_copy(update={"risk": Risk.DESTRUCTIVE if params.dangerous else Risk.DISRUPTIVE})

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:  # noqa: ARG002 - the contract's
        """Go there."""
        return await _turn(step, step.before["value"], step.desired["value"])

    async def undo(self, context: Context, step: PlannedStep) -> JsonObject:  # noqa: ARG002 - the contract's
        """Go back."""
        return await _turn(step, step.desired["value"], step.before["value"])


async def _turn(step: PlannedStep, start: int, goal: int) -> JsonObject:
    dial = Dial(Path(step.params["file"]))
    await asyncio.sleep(0)
    if dial.value not in {start, goal}:
        message = f"the dial is at {dial.value}, neither {start} nor {goal}"
        raise PermanentError(message, reason=Reason.CHANGED_SINCE_PLANNED)
    written = dial.value != goal
    if written:
        dial.turn(goal)
    return {"written": written, "planned_at": step.before["planned_at"]}


def turn(dial: Dial, **params: Any) -> dict[str, Any]:
    """A step."""
    return {"action": "test.turn", "with": {"file": str(dial.file)} | params}


def turns(dial: Dial, **fields: Any) -> dict[str, Any]:
    """A remediation that turns the dial from 3 to 5, unless said otherwise."""
    return remediation(**({"name": "turn", "steps": [turn(dial, to=5)]} | fields))


@pytest.fixture
def dial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dial:
    """A dial at 3."""
    monkeypatch.setitem(actions(), "test.turn", Turn())
    made = Dial(tmp_path / "dial")
    made.turn(3)
    return made
