"""The contract of an action: one class in one file, found by its path, with no list to edit.

`plan` only reads and names the state to reach. It is stored before `apply` runs, which brings that state about.
Neither retries, sleeps or logs secrets: retries are the engine's, in one place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from app.backends.instances import Clients
from app.backends.scope import Scope
from app.domain.model import JsonObject, Value
from app.domain.permissions import Permission
from app.domain.plans import PlannedStep, Target
from app.domain.remediation import Risk
from app.domain.wording import changes

P = TypeVar("P", bound=Value)


@dataclass(frozen=True, slots=True)
class Context:
    """The tools of an action or check; `now` is the one time of its stage (aware, UTC)."""

    clients: Clients
    scope: Scope
    run_id: str
    target: Target
    now: datetime


class Action(ABC, Generic[P]):
    """Something that a step does."""

    name: ClassVar[str]  # <backend>.<verb_object>, the same as its module's path
    summary: ClassVar[str]  # one line for the reference
    Params: ClassVar[type[Value]]
    risk: ClassVar[Risk]
    # The backend that the run's target must have; None: the action needs no target.
    target_backend: ClassVar[str | None] = None
    # True: applying the same plan again changes nothing, so a crash in the middle is answered by applying again.
    # False: a crash between start and result ends the run as `interrupted`.
    repeatable: ClassVar[bool] = False
    permissions: ClassVar[tuple[Permission, ...]] = ()
    # What changes by itself while a person thinks about a plan: fields of `before` and `desired`, or "summary" where it
    # counts such things. An approval still means the same plan when only these differ.
    drifts: ClassVar[frozenset[str]] = frozenset()

    # Parameters that are words for people. Two alerts share a run although its messages name only one of them.
    words: ClassVar[frozenset[str]] = frozenset()

    def can_repeat(self, step: PlannedStep) -> bool:  # noqa: ARG002 - for actions whose parameters decide
        """Say whether applying this very step again is harmless; a takeover asks this, instead of `repeatable`."""
        return self.repeatable

    @abstractmethod
    async def plan(self, context: Context, params: P) -> PlannedStep:
        """Read the state before and name the state to reach; changes nothing.

        Raises PermanentError (not found, forbidden, bounds) or TransientError (unreachable). If the action selects by
        age and nothing is old enough, the step says so (`not_yet`, with the time) and changes nothing: the run waits
        for that time and counts nowhere. Without it the step is done already, and the run goes on.
        """

    @abstractmethod
    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """Bring the planned state about and return the observation afterwards.

        Raises TransientError only when nothing was done, OutcomeUnknownError when the effect is unknown, else
        PermanentError.
        """

    def meaning(self, step: PlannedStep) -> JsonObject:
        """Return the meaning of this step for an approval; an approval of one holds for another that means the same."""
        meant: JsonObject = {"action": step.action, "changes": step.changes, "params": step.params}
        if "summary" not in self.drifts:
            meant["summary"] = step.summary
        return meant | {
            field: {key: value for key, value in facts.items() if key not in self.drifts}
            for field, facts in (("before", step.before), ("desired", step.desired))
        }

    def in_words(self, step: PlannedStep) -> list[str]:
        """Describe a planned step's changes from before to after, a line for each, for the person that approves it."""
        return changes(step)

    async def plan_undo(self, context: Context, step: PlannedStep) -> PlannedStep:  # noqa: ARG002
        """Return the step for `undo`, with the present objections against undoing it; only reads.

        `undo` itself asks whether another manager changed the target since: earlier steps may have to be undone first.
        """
        return step.model_copy(update={"summary": f"undo: {step.summary}", "conditions": (), "not_yet": None})

    async def dry_run(self, context: Context, step: PlannedStep) -> None:  # noqa: ARG002
        """Let the target say whether it would take the step, without effect; only where `can_dry_run` says so."""
        msg = f"{self.name} has no dry run"
        raise TypeError(msg)

    can_dry_run: ClassVar[bool] = False

    async def undo(self, context: Context, step: PlannedStep) -> JsonObject:  # noqa: ARG002
        """Go back to the state before, unless someone changed it since; only where `can_undo` says so."""
        msg = f"{self.name} cannot be undone"
        raise TypeError(msg)

    can_undo: ClassVar[bool] = False

    async def taken_back(self, context: Context, step: PlannedStep, *, undone: bool) -> str:  # noqa: ARG002
        """Name the part that is no longer as `apply` left it (`undo`, where `undone`), and its manager; else empty.

        Asked after verification, and again before the run succeeds; only reads, and only where `can_be_taken_back`.
        """
        return ""

    can_be_taken_back: ClassVar[bool] = False

    def planned(self, params: P, **fields: Any) -> PlannedStep:
        """A planned step of this action with its name, risk and JSON parameters filled in."""
        return PlannedStep(
            action=self.name, risk=self.risk, params=params.model_dump(mode="json", by_alias=True), **fields
        )
