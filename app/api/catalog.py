"""Shows the running catalog and reads its files again when asked."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.api.auth import Admin, Identity, Viewer
from app.api.json_body import body_of, read_given, storable
from app.api.models import CatalogAnswer, CatalogItem, FreezeAnswer, Reloaded, RemediationAnswer
from app.api.problems import ProblemError, ProblemReason, errors
from app.api.record import Preflight, Record, StandingAnswer, Summary, record, summaries
from app.api.services import Served, Services
from app.catalog.catalog import Catalog
from app.domain.errors import ConfigError, NotFoundError, StoreUnavailableError
from app.domain.findings import Result
from app.domain.freezes import Freeze
from app.domain.names import did_you_mean
from app.domain.remediation import Mode, Remediation
from app.engine.outcomes.earned_mode import set_by_hand
from app.store.audit import chain
from app.store.audit.chain import SERVICE, Entry, Event
from app.store.db.notify import announce_reload
from app.store.db.rerun import rerun

_MAX_PROBLEMS = 100
_UNTOLD = "the other replicas may not have been told; GET /catalog of each says what it has"
_UNNOTED = "the store did not confirm the record of this reload: GET /events says whether it is there"
log = structlog.get_logger()
router = APIRouter(tags=["catalog"])


class StandingWord(BaseModel):
    """The new earned mode, and the reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode
    comment: Annotated[str, AfterValidator(storable)] = Field(default="", max_length=1000)


class Listed(CatalogItem):
    """A remediation as the list shows it, with its record in short."""

    record: Summary | None = Field(description="Of the last 30 days; null while the store is away.")
    preflight: Result | None = Field(description="Whether it could run; null before the first look.")


class Listing(CatalogAnswer):
    """The running catalog with records."""

    items: list[Listed]  # type: ignore[assignment]  # the base's with more fields


class Shown(RemediationAnswer):
    """One remediation with its record."""

    record: Record | None = Field(description="Of the last 30 days; null while the store is away.")
    preflight: Preflight | None = Field(description="Whether it could run; null before the first look.")


@router.get(
    "/catalog",
    operation_id="getCatalog",
    summary="Show the running catalog",
    responses=errors(401, 403),
)
async def show_catalog(services: Served, _who: Viewer) -> Listing:
    """All remediations, warnings, and why the files' newest state was refused, if it was. Role: viewer."""
    catalog, error = services.catalog.current, services.catalog.last_error
    found: dict[str, Summary] = {}
    with suppress(StoreUnavailableError):
        async with services.database.browse() as tx:
            found = await summaries(tx, catalog.remediations, services.clock())
    return Listing(
        digest=catalog.digest,
        loaded_at=catalog.loaded_at,
        files=list(catalog.files),
        items=[
            Listed(**_item(catalog, name).model_dump(), record=found.get(name), preflight=_result(services, name))
            for name in catalog.remediations
        ],
        freezes=[_freeze(one, services.clock()) for one in catalog.freezes],
        warnings=[str(warning) for warning in services.catalog.warnings],
        last_reload_error=None if error is None else _problems(error),
        is_newest=not services.parts.currency.newer,
    )


@router.get(
    "/catalog/{name}",
    operation_id="getCatalogEntry",
    summary="Show one remediation of the running catalog",
    responses=errors(401, 403, 404, 422),
)
async def show_remediation(
    services: Served, _who: Viewer, name: Annotated[str, Path(description="The remediation's name.")]
) -> Shown:
    """With all defaults filled in, its record, and whether it could run. Role: viewer."""
    catalog = services.catalog.current
    remediation = _known(catalog, name)
    kept: Record | None = None
    with suppress(StoreUnavailableError):
        async with services.database.browse() as tx:
            kept = await record(tx, remediation, services.clock())
    report = services.preflight(name)
    return Shown(
        **_item(catalog, name).model_dump(),
        specification=remediation.to_json(),
        digest=catalog.digest,
        record=kept,
        preflight=None if report is None else Preflight.model_validate(report),
    )


@router.post(
    "/catalog/{name}/standing",
    operation_id="setStanding",
    summary="Set by hand how far a remediation has come that earns its mode",
    responses=errors(400, 401, 403, 404, 409, 413, 415, 422, 503),
    openapi_extra=body_of(StandingWord, required=True),
)
async def set_standing(
    request: Request, services: Served, who: Admin, name: Annotated[str, Path(description="The remediation's name.")]
) -> StandingAnswer:
    """Its counts begin anew. 409 where it has no `earn`, and for a mode above its own. Role: admin."""
    given = await read_given(request, StandingWord)
    remediation = _known(services.catalog.current, name)
    return await _set_standing(services, remediation, given, who)


@rerun
async def _set_standing(
    services: Services, remediation: Remediation, given: StandingWord, who: Identity
) -> StandingAnswer:
    async with services.parts.turn() as turn:
        said = await set_by_hand(turn, remediation, given.mode, Entry(given.comment, actor=who.name))
    return StandingAnswer.model_validate(said)


@router.post(
    "/-/reload",
    operation_id="reload",
    summary="Read the catalog's files again",
    responses=errors(401, 403, 422),
    tags=["operation"],
)
async def reload(services: Served, who: Admin) -> Reloaded:
    """If a file is wrong, the answer has every problem and the running catalog stays. Role: admin.

    The other replicas read their files too; their metrics and logs have the result.
    """
    await services.catalog.reload(services.clock())
    is_told = await announce_reload(services.database, services.parts.owner)
    catalog, error = services.catalog.current, services.catalog.last_error
    is_noted = await _note_reload(services, who.name, catalog, is_accepted=error is None)
    if error is not None:
        detail = f"the files were refused; the catalog {catalog.short_digest} stays active"
        raise ProblemError(422, ProblemReason.CATALOG_INVALID, detail, errors=_problems(error))
    return Reloaded(
        digest=catalog.digest,
        loaded_at=catalog.loaded_at,
        remediations=len(catalog),
        warnings=[
            *(str(warning) for warning in services.catalog.warnings),
            *([] if is_told else [_UNTOLD]),
            *([] if is_noted else [_UNNOTED]),
        ],
    )


async def _note_reload(services: Services, actor: str, catalog: Catalog, *, is_accepted: bool) -> bool:
    """Audit it; it is done already, so a store that is away does not make it fail. False where it may not be there."""
    result = "accepted" if is_accepted else "refused"
    said = f"reload by {actor}: the files were {result}, the catalog is {catalog.short_digest}"
    entry = Entry(said, actor=actor, data={"digest": catalog.digest, "result": result})
    try:
        async with services.parts.turn() as turn:
            await chain.append(turn.tx, [Event(SERVICE, turn.now, "reloaded", "", entry)])
    except StoreUnavailableError:
        log.warning("a reload could not be recorded", actor=actor, result=result)
        return False
    return True


def _known(catalog: Catalog, name: str) -> Remediation:
    remediation = catalog.get(name)
    if remediation is None:
        raise NotFoundError(f"there is no remediation {name[:63]!r}{did_you_mean(name[:63], catalog.remediations)}")
    return remediation


def _result(services: Services, name: str) -> Result | None:
    report = services.preflight(name)
    return None if report is None else report.result


def _item(catalog: Catalog, name: str) -> CatalogItem:
    remediation = catalog.remediations[name]
    return CatalogItem(
        name=name,
        summary=remediation.summary,
        mode=remediation.mode,
        matchers=list(remediation.matchers),
        source=str(catalog.sources[name]),
    )


def _freeze(freeze: Freeze, now: datetime) -> FreezeAnswer:
    holds = freeze.holds(now)
    return FreezeAnswer(
        name=freeze.name,
        summary=freeze.summary,
        remediations=list(freeze.remediations),
        when=freeze.when,
        holds=holds,
        until=freeze.end(now) if holds else None,
    )


def _problems(error: ConfigError) -> list[str]:
    shown = [str(diagnostic) for diagnostic in error.diagnostics[:_MAX_PROBLEMS]] or [error.message]
    rest = len(error.diagnostics) - _MAX_PROBLEMS
    return [*shown, f"and {rest} more"] if rest > 0 else shown
