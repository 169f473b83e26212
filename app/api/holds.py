"""Stops remediations and lets them go on: pauses of everything, one remediation or one target; breakers by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from app.api.auth import Approver, Identity, Role, Viewer
from app.api.given import body_of, read_given, storable
from app.api.models import Answer
from app.api.problems import ProblemError, ProblemReason, errors
from app.api.services import Served, Services
from app.catalog.names import did_you_mean
from app.domain.durations import Duration
from app.domain.errors import NotFoundError
from app.domain.moments import BoundedMoment
from app.domain.obstacles import Hold
from app.domain.plans import BACKENDS
from app.domain.states import RunState
from app.store import approvals, breakers, events, holds
from app.store.approvals import Verb, Word
from app.store.events import SERVICE, Entry, Event, catalog_chain
from app.store.holds import Held
from app.store.rerun import rerun

_ERRORS = errors(400, 401, 403, 404, 413, 415, 422, 503)
_LOCK = "pause"  # of those who put and take them; the engine never has it
_UNSEEN = "the pause stands, but a replica that was beginning a step does not answer: that one step may still be begun"
Words = Annotated[str, AfterValidator(storable), Field(max_length=1000)]
Name = Annotated[str, Path(description="The remediation's name.")]
router = APIRouter()


class Pause(BaseModel):
    """Why and for how long; without an end it stands until it is taken away."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    """What is paused: a remediation, a target, or without both everything."""

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
        if target is not None and target.partition(":")[0] not in BACKENDS:
            raise ValueError("must be a target's key as runs show it, for example kubernetes:Deployment/shop/api")
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

    warnings: list[str] = Field(description="What whoever asked should know of it.")


class BreakerWord(BaseModel):
    """What becomes of the runs that waited for the breaker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    waiting: Literal["replay", "drop"] = Field(description="replay: decide them now; drop: cancel them.")
    comment: Words = ""


class BreakerClosed(Answer):
    """What closing a breaker did."""

    was_open: bool
    dropped: int = Field(description="Runs that had waited and were cancelled.")


@router.get(
    "/pause", operation_id="getPauses", summary="Show what is paused", responses=errors(401, 403), tags=["pause"]
)
async def show_pauses(services: Served, _who: Viewer) -> Pauses:
    """Role: viewer."""
    async with services.database.browse() as tx:
        return _answer(await holds.standing(tx, services.clock()))


@router.put(
    "/pause",
    operation_id="putPause",
    summary="Pause everything, one remediation or one target",
    responses=_ERRORS,
    openapi_extra=body_of(PauseOf, required=True),
    tags=["pause"],
)
async def put_pause(request: Request, services: Served, who: Approver) -> Paused:
    """One pause for each person and subject: a second one replaces the first. Running steps finish. Role: approver."""
    given = await read_given(request, PauseOf)
    if given.remediation is not None:
        _known(services, given.remediation)
    return await _put(services, _subject(given.remediation, given.target), given, who)


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
    """What waited is decided at once. Role: approver; for somebody else's pause admin."""
    return await _take(services, _subject(remediation, target), who, holder)


@router.post(
    "/catalog/{name}/pause",
    operation_id="pauseRemediation",
    summary="Pause one remediation",
    responses=_ERRORS,
    openapi_extra=body_of(Pause, required=True),
    tags=["pause"],
)
async def pause_remediation(request: Request, services: Served, who: Approver, name: Name) -> Paused:
    """The same as PUT /pause with its name. Role: approver."""
    given = await read_given(request, Pause)
    return await _put(services, Held("remediation", _known(services, name)), given, who)


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
    """The same as DELETE /pause with its name. Role: approver; for somebody else's pause admin."""
    return await _take(services, Held("remediation", name), who, holder)


@router.post(
    "/catalog/{name}/breaker/close",
    operation_id="closeBreaker",
    summary="Close a remediation's breaker by hand",
    responses=_ERRORS,
    openapi_extra=body_of(BreakerWord, required=True),
    tags=["pause"],
)
async def close_breaker(request: Request, services: Served, who: Approver, name: Name) -> BreakerClosed:
    """Says what becomes of the runs that waited for it. Role: approver."""
    given = await read_given(request, BreakerWord)
    _known(services, name)
    closed = await _close(services, name, given, who)
    services.metrics.runs.labels(name, RunState.CANCELLED).inc(closed.dropped)
    services.work.set()
    return closed


@rerun
async def _close(services: Services, name: str, given: BreakerWord, who: Identity) -> BreakerClosed:
    now, dropped = services.clock(), 0
    async with services.database.write(lock="admission") as tx:
        if given.waiting == "drop":
            for run_id in await breakers.waiting(tx, name):
                await approvals.decide(tx, run_id, Word(Verb.DROP, who.name, given.comment), now)
                dropped += 1
        was_open = await breakers.close(tx, name, now)
        said = f"breaker closed by {who.name}; what waited is " + ("dropped" if given.waiting == "drop" else "decided")
        data = {"waiting": given.waiting, "dropped": dropped, "comment": given.comment}
        entry = Entry(said if was_open else f"{said}; it was not open", actor=who.name, data=data)
        await events.append(tx, [Event(catalog_chain(name), now, "breaker_closed", "", entry)])
    return BreakerClosed(was_open=was_open, dropped=dropped)


@rerun
async def _put(services: Services, held: Held, given: Pause, who: Identity) -> Paused:
    async with services.parts.turn(_LOCK) as turn:
        tx, now = turn.tx, turn.now
        until = given.end(now)
        is_length = given.duration is not None
        await holds.put(tx, held, Hold(held.scope, who.name, given.why, until), now, is_length=is_length)
        end = f" until {until:%Y-%m-%d %H:%M:%S} UTC" if until else ""
        said = f"{_told(held)} paused by {who.name}{end}: {given.why}"
        await events.append(tx, [_event(held, now, "paused", Entry(said, actor=who.name))])
        standing = await holds.standing(tx, now)
    warnings = [] if await holds.seen_by_all(services.database) else [_UNSEEN]
    return Paused.model_validate({"items": standing, "warnings": warnings})


@rerun
async def _take(services: Services, held: Held, who: Identity, holder: str | None) -> Pauses:
    whose = holder or who.name
    if whose != who.name and not who.role.may(Role.ADMIN):
        detail = "only an admin may take somebody else's pause away"
        raise ProblemError(403, ProblemReason.FORBIDDEN, detail)
    now = services.clock()
    async with services.database.write(lock=_LOCK) as tx:
        if not await holds.take(tx, held, whose, who.name, now):
            others = [row.holder for row in await holds.standing(tx, now) if (row.scope, row.subject) == _key(held)]
            hint = f"; it is paused by {', '.join(others)} (holder=…)" if others else ""
            raise NotFoundError(f"there is no pause of {_told(held)} by {whose}{hint}")
        said = f"{_told(held)} resumed by {who.name}" + (f" for {whose}" if whose != who.name else "")
        await events.append(tx, [_event(held, now, "resumed", Entry(said, actor=who.name))])
        left = _answer(await holds.standing(tx, now))
    services.work.set()
    return left


def _subject(remediation: str | None, target: str | None) -> Held:
    if remediation is not None and target is not None:
        detail = "at most one of remediation and target must be given"
        raise ProblemError(422, ProblemReason.WRONG_SHAPE, detail, field="target")
    if remediation is not None:
        return Held("remediation", remediation)
    return Held("all") if target is None else Held("target", target)


def _known(services: Services, name: str) -> str:
    catalog = services.catalog.current
    if catalog.get(name) is None:
        raise NotFoundError(f"there is no remediation {name[:63]!r}{did_you_mean(name[:63], catalog.remediations)}")
    return name


def _key(held: Held) -> tuple[str, str]:
    return held.scope, held.subject


def _told(held: Held) -> str:
    return "everything" if held.scope == "all" else f"{held.scope} {held.subject}"


def _event(held: Held, now: datetime, kind: str, entry: Entry) -> Event:
    chain = catalog_chain(held.subject) if held.scope == "remediation" else SERVICE
    return Event(chain, now, kind, "", replace(entry, data={"scope": held.scope, "subject": held.subject}))


def _answer(rows: object) -> Pauses:
    return Pauses.model_validate({"items": rows})
