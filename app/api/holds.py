"""Stops remediations and lets them go on: pauses of everything, one remediation or one target."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from app.api.auth import Approver, Identity, Role, Viewer
from app.api.json_body import body_of, read_given, storable
from app.api.models import Answer
from app.api.problems import ProblemError, ProblemReason, errors
from app.api.services import Served, Services
from app.api.targets import check_instance, key_objection, unseen
from app.domain.durations import Duration
from app.domain.errors import NotFoundError, StoreUnavailableError
from app.domain.moments import BoundedMoment
from app.domain.names import did_you_mean, listed
from app.domain.obstacles import Hold
from app.engine.outcomes import pausing
from app.store.db.rerun import rerun
from app.store.db.stalled import cut_off
from app.store.gates import pauses
from app.store.gates.pauses import Held

ERRORS = errors(400, 401, 403, 404, 413, 415, 422, 503)
_ENDLESS = 'this pause has NO END: it stands until a person takes it away (DELETE /pause); "for": "2h" gives it one'
_UNSEEN = "the pause stands, but a replica that was beginning a step does not answer: that one step may still be begun"
Words = Annotated[str, AfterValidator(storable), Field(max_length=1000)]
Name = Annotated[str, Path(description="The remediation's name.")]
router = APIRouter()


class Pause(BaseModel):
    """Why and for how long; without an end it stands until it is taken away."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # Names that people may write instead: the answer has the right one.
    MEANT: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("reason", "comment", "message", "because", "note", "cause"), "why"),
        **dict.fromkeys(("duration", "ttl", "time", "timeout", "hours", "minutes", "seconds", "period"), "for"),
        **dict.fromkeys(("end", "ends", "endsAt", "ends_at", "expires", "expires_at", "to"), "until"),
        **dict.fromkeys(("name", "rule", "runbook", "alert", "alertname"), "remediation"),
        **dict.fromkeys(("object", "resource", "key", "deployment", "database"), "target"),
    }

    why: Annotated[Words, Field(min_length=1)]
    duration: Duration | None = Field(default=None, alias="for")
    until: BoundedMoment | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Pause:
        if self.duration is not None and self.until is not None:
            raise ValueError("at most one of for and until must be given")
        return self

    def end(self, now: datetime) -> datetime | None:
        """When it ends; raises a problem when that is over already."""
        until = self.until if self.duration is None else now + self.duration
        if until is not None and until <= now:
            raise ProblemError(422, ProblemReason.WRONG_SHAPE, "the end of the pause is over already", field="until")
        return until


class PauseOf(Pause):
    """The subject of a pause: a remediation, a target, or without both everything."""

    remediation: Annotated[str, Field(max_length=63)] | None = None
    target: Words | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> PauseOf:
        if self.remediation is not None and self.target is not None:
            raise ValueError("at most one of remediation and target must be given")
        return self

    @field_validator("target")
    @classmethod
    def _a_key(cls, target: str | None) -> str | None:
        objection = None if target is None else key_objection(target)
        if objection is not None:
            raise ValueError(objection)
        return target


class PauseAnswer(Answer):
    """A pause that stands."""

    scope: Literal["all", "remediation", "target"]
    subject: str = Field(description="The remediation's name or the target's key; empty for all.")
    holder: str
    why: str
    since: datetime
    until: datetime | None


class Pauses(Answer):
    """Every pause that stands, oldest first."""

    items: list[PauseAnswer]


class Paused(Pauses):
    """The same, after one was put."""

    warnings: list[str] = Field(description="Warnings about this pause.")


@router.get("/pause", operation_id="getPauses", summary="List the pauses", responses=errors(401, 403), tags=["pause"])
async def show_pauses(services: Served, _who: Viewer) -> Pauses:
    """Role: viewer."""
    async with services.database.browse() as tx:
        return _answer(await pauses.standing(tx, services.clock()))


@router.put(
    "/pause",
    operation_id="putPause",
    summary="Pause everything, one remediation or one target",
    responses=ERRORS,
    openapi_extra=body_of(PauseOf, required=True),
    tags=["pause"],
)
async def put_pause(request: Request, services: Served, who: Approver) -> Paused:
    """One pause for each person and subject: a second one replaces the first. Running steps finish. Role: approver."""
    given = await read_given(request, PauseOf)
    if given.remediation is not None:
        known_remediation(services, given.remediation)
    if given.target is not None:
        check_instance(services, given.target)
    return await _put(services, _subject(given.remediation, given.target), given, who)


@router.post(
    "/pause",
    operation_id="postPause",
    summary="The same as PUT /pause",
    responses=ERRORS,
    openapi_extra=body_of(PauseOf, required=True),
    tags=["pause"],
)
async def post_pause(request: Request, services: Served, who: Approver) -> Paused:
    """For a person who stops everything in a hurry. Role: approver."""
    return await put_pause(request, services, who)


@router.delete(
    "/pause",
    operation_id="deletePause",
    summary="Take a pause away",
    responses=errors(401, 403, 404, 422),
    tags=["pause"],
)
async def delete_pause(
    services: Served,
    who: Approver,
    remediation: Annotated[str | None, Query(max_length=63, description="The pause of this remediation.")] = None,
    target: Annotated[str | None, Query(max_length=1000, description="The pause of this target.")] = None,
    holder: Annotated[str | None, Query(max_length=200, description="Whose; default: yours.")] = None,
) -> Pauses:
    """Waiting runs are decided at once. Role: approver; for another person's pause admin."""
    return await _take(services, _subject(remediation, target), who, holder)


@router.post(
    "/catalog/{name}/pause",
    operation_id="pauseRemediation",
    summary="Pause one remediation",
    responses=ERRORS,
    openapi_extra=body_of(Pause, required=True),
    tags=["pause"],
)
async def pause_remediation(request: Request, services: Served, who: Approver, name: Name) -> Paused:
    """The same as PUT /pause with its name. Role: approver."""
    given = await read_given(request, Pause)
    return await _put(services, Held("remediation", known_remediation(services, name)), given, who)


@router.post(
    "/catalog/{name}/resume",
    operation_id="resumeRemediation",
    summary="Take a pause of one remediation away",
    responses=errors(401, 403, 404, 422),
    tags=["pause"],
)
async def resume_remediation(
    services: Served,
    who: Approver,
    name: Name,
    holder: Annotated[str | None, Query(max_length=200, description="Whose; default: yours.")] = None,
) -> Pauses:
    """The same as DELETE /pause with its name. Role: approver; for another person's pause admin."""
    return await _take(services, Held("remediation", name), who, holder)


@rerun
async def _put(services: Services, held: Held, given: Pause, who: Identity) -> Paused:
    async with cut_off(services.database):
        async with services.parts.turn(pausing.LOCK) as turn:
            tx, now = turn.tx, turn.now
            until = given.end(now)
            given_hold = Hold(held.scope, who.name, given.why, until)
            await pausing.pause(turn, held, given_hold, is_length=given.duration is not None)
            standing = await pauses.standing(tx, now)
        is_seen = await pauses.seen_by_all(services.database)
    warnings = [] if until else [_ENDLESS]
    if held.scope == "target":
        with suppress(StoreUnavailableError):  # the pause stands, and the answer says so
            warnings += await unseen(services, held.subject)
    return Paused.model_validate({"items": standing, "warnings": warnings if is_seen else [*warnings, _UNSEEN]})


@rerun
async def _take(services: Services, held: Held, who: Identity, holder: str | None) -> Pauses:
    whose = holder or who.name
    if whose != who.name and not who.role.may(Role.ADMIN):
        detail = "only an admin may take another person's pause away"
        raise ProblemError(403, ProblemReason.FORBIDDEN, detail)
    async with services.parts.turn(pausing.LOCK) as turn:
        if not await pausing.resume(turn, held, whose, who.name):
            raise _none_of(held, whose, await pauses.standing(turn.tx, turn.now))
        left = _answer(await pauses.standing(turn.tx, turn.now))
    services.work.set()
    return left


def _none_of(held: Held, whose: str, standing: Sequence[Any]) -> NotFoundError:
    others = [row.holder for row in standing if (row.scope, row.subject) == (held.scope, held.subject)]
    hint = f"; it is paused by {', '.join(others)} (holder=…)" if others else ""
    if not hint and held.subject:
        hint = did_you_mean(held.subject, [row.subject for row in standing if row.scope == held.scope])
    if not hint and standing:
        stands = (f"{pausing.in_words(Held(row.scope, row.subject))} by {row.holder}" for row in standing)
        hint = f"; these pauses stand: {listed(stands)}"
    return NotFoundError(f"there is no pause of {pausing.in_words(held)} by {whose}{hint}")


def _subject(remediation: str | None, target: str | None) -> Held:
    if remediation is not None and target is not None:
        detail = "at most one of remediation and target must be given"
        raise ProblemError(422, ProblemReason.WRONG_SHAPE, detail, field="target")
    if remediation is not None:
        return Held("remediation", remediation)
    return Held("all") if target is None else Held("target", target)


def known_remediation(services: Services, name: str) -> str:
    """The name, where the catalog has it; raises NotFoundError with the nearest one."""
    catalog = services.catalog.current
    if catalog.get(name) is None:
        raise NotFoundError(f"there is no remediation {name[:63]!r}{did_you_mean(name[:63], catalog.remediations)}")
    return name


def _answer(rows: object) -> Pauses:
    return Pauses.model_validate({"items": rows})
