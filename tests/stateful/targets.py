"""A target in memory that counts what is done to it, by itself: two actions and a check that are there at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from app.backends.action import Action, Context
from app.backends.check import Check, CheckContext, observation
from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.model import JsonObject, Value
from app.domain.plans import Observation, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk


class CrashError(BaseException):
    """The process ends here; nothing of the engine may catch it."""


FAULTS: dict[str, Callable[[], BaseException]] = {
    "transient": lambda: TransientError("injected"),
    "permanent": lambda: PermanentError("injected"),
    "unknown": lambda: OutcomeUnknownError("injected"),
    "bug": lambda: RuntimeError("injected"),
    "crash before": CrashError,
    "crash after": CrashError,
}


def _fault(name: str) -> BaseException:
    return FAULTS[name]()


@dataclass
class Targets:
    """Every target by its key: what was done to it by which run, and the value that it has."""

    hits: Counter[tuple[str, str]] = field(default_factory=Counter)  # (run, target)
    values: dict[str, int] = field(default_factory=dict)
    writers: set[str] = field(default_factory=set)  # runs that have done anything
    busy: set[str] = field(default_factory=set)
    fault: str = ""
    hidden: str = ""  # transient or permanent: what looking at a target meets until that is over
    is_well: bool = True
    crossed: list[str] = field(default_factory=list)
    objection: Callable[[str, str], Awaitable[str]] | None = (
        None  # says why a run may not touch a target now; empty: it may
    )
    objections: list[str] = field(default_factory=list)  # to what was done nevertheless
    then: Callable[[], Awaitable[None]] | None = None  # what happens once, right after the next effect

    async def touch(self, key: str, run_id: str, effect: Callable[[], None]) -> None:
        """Bring an effect about, with the fault that is due before or after it."""
        fault, self.fault = self.fault, ""
        if self.objection is not None and (objection := await self.objection(key, run_id)) != "":
            self.objections.append(f"{run_id} on {key}: {objection}")
        if key in self.busy:
            self.crossed.append(key)
        self.busy.add(key)
        try:
            await asyncio.sleep(0)
            if fault and fault not in {"crash after", "unknown"}:
                raise _fault(fault)
            effect()
            self.writers.add(run_id)
            await asyncio.sleep(0)
            then, self.then = self.then, None
            if then is not None:
                await then()
            if fault:
                raise _fault(fault)
        finally:
            self.busy.discard(key)

    def value(self, key: str) -> int:
        """What a target is set to; 1 at first."""
        return self.values.get(key, 1)

    def look(self, key: str) -> int:
        """Read the value as a plan does; raises while targets are hidden."""
        if self.hidden:
            raise _fault(self.hidden)
        return self.value(key)


targets = Targets()


class NoParams(Value):
    """Nothing to choose."""


class Hit(Action[NoParams]):
    """Hits a target: every call counts, and none may be repeated."""

    name = "test.hit"
    summary = "Hit a target."
    Params = NoParams
    risk = Risk.DISRUPTIVE
    target_backend = "redis"

    async def plan(self, context: Context, params: NoParams) -> PlannedStep:
        """Read nothing that the plan would tell."""
        targets.look(context.target.key)
        return self.planned(params, summary=f"hit {context.target.key}")

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:  # noqa: ARG002 - the contract's
        """Count."""
        key = context.target.key

        def hit() -> None:
            targets.hits[context.run_id, key] += 1

        await targets.touch(key, context.run_id, hit)
        return {}


class SetParams(Value):
    """Where to."""

    to: int


class Set(Action[SetParams]):
    """Sets a target to a value, from the planned one and from no other; can be undone."""

    name = "test.set"
    summary = "Set a target."
    Params = SetParams
    risk = Risk.LOW
    target_backend = "redis"
    repeatable = True
    can_undo = True

    async def plan(self, context: Context, params: SetParams) -> PlannedStep:
        """Read the value."""
        now = targets.look(context.target.key)
        return self.planned(
            params,
            summary=f"set {context.target.key} from {now} to {params.to}",
            before={"value": now},
            desired={"value": params.to},
            changes=now != params.to,
        )

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """Go there."""
        return await self._go(context, step.before["value"], step.desired["value"])

    async def undo(self, context: Context, step: PlannedStep) -> JsonObject:
        """Go back."""
        return await self._go(context, step.desired["value"], step.before["value"])

    async def _go(self, context: Context, start: int, goal: int) -> JsonObject:
        key = context.target.key
        if targets.value(key) not in {start, goal}:
            raise PermanentError("changed meanwhile", reason=Reason.CHANGED_SINCE_PLANNED)

        def write() -> None:
            targets.values[key] = goal

        await targets.touch(key, context.run_id, write)
        return {}


class Well(Check[NoParams]):
    """Whether the targets are well."""

    name = "test.well"
    summary = "The targets are well."
    Params = NoParams

    async def observe(self, context: CheckContext, params: NoParams) -> Observation:  # noqa: ARG002 - the contract's
        """Look."""
        return observation(targets.is_well, "well" if targets.is_well else "not well")


ACTIONS: dict[str, Action[Any]] = {"test.hit": Hit(), "test.set": Set()}
CHECKS: dict[str, Check[Any]] = {"test.well": Well()}
