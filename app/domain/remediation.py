"""A remediation as its author wrote it, once the catalog has validated it."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, WithJsonSchema, model_validator

from app.domain import former_names
from app.domain.durations import Duration, Rate, Rates
from app.domain.int_or_percent import Share, ShareOrCount
from app.domain.model import JsonObject, Value
from app.domain.moments import Positive

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_WEB_URL = re.compile(r"https?://[^\s/]\S*")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        msg = f"{text!r} cannot be a name; use a-z, 0-9 and - (at most 63, not at the ends)"
        raise ValueError(msg)
    return text


def _web_url(text: str) -> str:
    if not _WEB_URL.fullmatch(text):
        msg = f"{text!r} is not an http or https URL"
        raise ValueError(msg)
    return text


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})]
WebUrl = Annotated[
    str, AfterValidator(_web_url), WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://"})
]
Template = Annotated[str, Field(description="May use Jinja2 over labels, annotations, alert and target.")]


class Mode(StrEnum):
    """How far a remediation may go by itself; the global ceiling caps it."""

    OBSERVE = "observe"
    APPROVE = "approve"
    AUTO = "auto"

    @property
    def rank(self) -> int:
        """Order of the modes: a ceiling is the minimum of two ranks."""
        return list(Mode).index(self)


class Risk(StrEnum):
    """The damage that a wrong action may do."""

    LOW = "low"
    DISRUPTIVE = "disruptive"
    DESTRUCTIVE = "destructive"

    @property
    def rank(self) -> int:
        """Order of the risks: the stronger action has the higher rank."""
        return list(Risk).index(self)


class Purpose(StrEnum):
    """The purpose of a run."""

    REMEDY = "remedy"  # answers an alert
    UNDO = "undo"  # takes a run back, because a person or its failed verification says so
    REVERT = "revert"  # gives a run's borrowed changes back, now that its alert has resolved


class Switchable(StrEnum):
    """The guards that a remediation may turn off, with a word why; the others hold always."""

    FREEZE = "freeze"
    MAX_AGE = "max_age"
    FRESH = "fresh"
    BREAKER = "breaker"
    COOLDOWN = "cooldown"
    RATE = "rate"
    CONCURRENCY = "concurrency"
    STORM = "storm"


class TargetSpec(BaseModel):
    """The thing to act on: the name of exactly one backend, with fields that this backend knows."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, JsonObject]

    @model_validator(mode="after")
    def _one_backend(self) -> TargetSpec:
        given = list(self.__pydantic_extra__)
        if len(given) != 1:
            msg = "exactly one backend must be given" + (f", not {' and '.join(given)}" if given else "")
            raise ValueError(msg)
        return self

    @property
    def backend(self) -> str:
        """The name of the backend that is given."""
        return next(iter(self.__pydantic_extra__))

    @property
    def fields(self) -> JsonObject:
        """Return the fields as they are written; fields at their defaults may be missing."""
        return self.__pydantic_extra__[self.backend]


class StepSpec(Value):
    """One action with its arguments."""

    action: str
    with_: JsonObject = Field(default_factory=dict, alias="with")
    timeout: Duration = Field(default=timedelta(minutes=2), description="Deadline of the step, retries included.")


class CheckSpec(Value):
    """One observation: before the steps (`when`) or after them (`verify`)."""

    check: str
    with_: JsonObject = Field(default_factory=dict, alias="with")
    timeout: Duration = Field(default=timedelta(minutes=1), description="How long the check may take to hold.")


class Earn(Value):
    """How a remediation earns its mode: it starts low and is promoted, or demoted, on its own record."""

    start: Mode = Mode.OBSERVE
    approve_after: Positive = Field(default=5, description="Runs that it would have done, before it may ask.")
    auto_after: Positive = Field(
        default=5, description="Approved runs that helped, in a row, before it acts by itself."
    )
    demote_after: Positive = Field(default=2, description="Failed or ineffective runs in a row that cost it a step.")


class Limits(Value):
    """How often and how widely a remediation may act; the defaults are on."""

    cooldown: Duration = Field(default=timedelta(minutes=10), description="Quiet time per target after every outcome.")
    rate: Rates = Field(default=(Rate(3, timedelta(hours=1)),), description="Admissions per window, over all targets.")
    target_rate: Rates = Field(
        default=(Rate(5, timedelta(days=1)),), description="Admissions on one target, by all remediations together."
    )
    attempts: int = Field(default=1, ge=1, le=10, description="How often one episode may be tried.")
    reach_within: Duration = Field(
        default=timedelta(minutes=5),
        description="After so long without an answer of the target a rung did not help, and the next one is tried.",
    )
    max_targets: Positive | None = Field(default=None, description="How many targets may be worked on at once.")
    breaker: Positive = Field(default=3, description="After so many failed or ineffective runs in a row it stops.")
    breaker_pause: Duration = Field(
        default=timedelta(hours=1), description="After this the breaker lets one run through, as a trial."
    )
    storm: Rates = Field(
        default=(Rate(20, timedelta(minutes=10)),), description="More alerts than this are one outage: nothing is done."
    )
    max_unhealthy: ShareOrCount = Field(
        default=Share(percent=50),
        description="More unhealthy workloads in the target's namespace than this are one outage; 3 or 50%.",
    )


class Rung(Value):
    """One level of escalation: tried when the one before did not make the alert resolve."""

    steps: tuple[StepSpec, ...] = Field(min_length=1)
    verify: tuple[CheckSpec, ...] = ()
    settle: Duration | None = None


class Remediation(Value):
    """One declared entry of the catalog."""

    name: Name
    summary: str = Field(min_length=1, max_length=200)
    description: str = ""
    runbook_url: WebUrl | None = None
    matchers: tuple[str, ...] = Field(min_length=1, description="Alertmanager matchers; all of them must match.")
    mode: Mode = Mode.OBSERVE
    allow_destructive: StrictBool = Field(
        default=False, description="Lets destructive actions run without approval in mode auto."
    )
    max_age: Duration = Field(default=timedelta(days=1), description="An alert that began longer ago is too late.")
    target: TargetSpec | None = None
    when: tuple[CheckSpec, ...] = ()
    limits: Limits = Limits()
    steps: tuple[StepSpec, ...] = Field(min_length=1)
    verify: tuple[CheckSpec, ...] = ()
    settle: Duration | None = Field(default=None, description="The alert must resolve within this after verification.")
    escalate: tuple[Rung, ...] = ()
    undo_on_failure: StrictBool = Field(default=False, description="Take the steps back when verification fails.")
    revert: Literal["on_resolved"] | None = Field(
        default=None, description="on_resolved: take the steps back once the alert has resolved."
    )
    revert_after: Duration = Field(
        default=timedelta(minutes=10), description="How long the alert must have been resolved before that."
    )
    effective_within: Duration = Field(
        default=timedelta(hours=1),
        description="An alert that still fires this long after the run was not helped by it.",
    )
    earn: Earn | None = Field(default=None, description="Start below `mode` and be promoted on the record.")
    channel: str | None = Field(default=None, description="Channel for people; default: the configured one.")
    without_guards: dict[Switchable, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict, description="Guards that do not hold for this one, each with the reason."
    )

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """The levels in order; the first is made of the remediation's own steps."""
        return (Rung(steps=self.steps, verify=self.verify, settle=self.settle), *self.escalate)

    @cached_property
    def deed(self) -> str:
        """Digest the steps, their conditions and their limits: everything but words for people."""
        told = {"summary", "description", "runbook_url", "channel"}
        does = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=told)
        stored = former_names.stored_specification(does)  # so that a name that changes makes nothing begin anew
        return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """All of it, with every default filled in."""
        return self.model_dump(mode="json", by_alias=True)

    @cached_property
    def stored(self) -> dict[str, Any]:
        """Return the stored form: without fields at their defaults, which another release may not know."""
        given = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return former_names.stored_specification(given)
