"""A plan: everything that a run will do, resolved and stored before the first of it is done."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta

from pydantic import Field

from app.domain.durations import Duration
from app.domain.model import JsonObject, Value
from app.domain.reasons import Reason
from app.domain.remediation import Risk

NO_BACKEND = "none"  # of the target of a run that acts on nothing that could be locked by its name


class Target(Value):
    """The exact thing that a run acts on; `key` is unique over all backends, and the target lock holds it."""

    backend: str  # its name, or NO_BACKEND
    key: str  # the backend's name, a colon, and the place as the backend writes it
    kind: str = ""
    namespace: str = ""
    name: str = ""
    resolved_from: str = ""  # the alert's own subject, if it was not the target itself: Pod shop/api-7d9-x2x
    # The instance, unless it is the backend's default one. Only then stored: a release that knows one instance only
    # cannot read such a plan, and so does not act at the wrong one.
    at: str = Field(default="", exclude_if=lambda name: not name)


class Condition(Value):
    """Something seen at the target while planning that may forbid acting on it now."""

    reason: Reason
    message: str
    passes: bool = True  # False: waiting will not help (deny), True: decide again soon (defer)


class NotYet(Value):
    """There is nothing to do yet, and time will change that: the answer of an action that selects by age."""

    message: str
    at: datetime | None = None  # when there may be something to do, as the action sees it; None: soon


class PlannedStep(Value):
    """One step with its state before and the state to reach; applying it twice must be safe or be refused."""

    action: str
    summary: str  # one line for a person: restart Deployment shop/api (3 replicas)
    params: JsonObject = Field(default_factory=dict)
    before: JsonObject = Field(default_factory=dict)
    desired: JsonObject = Field(default_factory=dict)
    changes: bool = True  # False: the target is already as desired; apply is skipped
    risk: Risk = Risk.DISRUPTIVE
    conditions: tuple[Condition, ...] = ()
    # Only stored where an action says it: a release that does not know the field reads all other plans.
    not_yet: NotYet | None = Field(default=None, exclude_if=lambda said: said is None)
    timeout: Duration = timedelta(minutes=2)


class PlannedCheck(Value):
    """One check with its arguments rendered."""

    check: str
    params: JsonObject = Field(default_factory=dict)
    timeout: Duration = timedelta(minutes=1)


class Observation(Value):
    """The result of one look of a check."""

    held: bool
    message: str
    data: JsonObject = Field(default_factory=dict)


class Plan(Value):
    """The planned steps of one rung on its target."""

    rung: int
    target: Target
    steps: tuple[PlannedStep, ...]
    verify: tuple[PlannedCheck, ...] = ()
    settle: Duration | None = None
    when: tuple[Observation, ...] = ()  # the observations of the preconditions, in order
    # The runs whose steps are taken back. Only then stored: a release that does not know the field cannot read such a
    # plan, and so does not apply the steps once more.
    undoes: tuple[str, ...] = Field(default=(), exclude_if=lambda runs: not runs)

    @property
    def question(self) -> str:
        """Names this very plan, so that an approval can say which plan it means."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def changes(self) -> bool:
        """Whether any step would change anything."""
        return any(step.changes for step in self.steps)
