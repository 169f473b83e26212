"""Shows the running catalog and reads its files again when asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from app.api.auth import Admin, Viewer
from app.api.models import CatalogAnswer, CatalogItem, Reloaded, RemediationAnswer
from app.api.problems import ProblemError, ProblemReason, errors
from app.api.services import Served
from app.catalog.catalog import Catalog
from app.catalog.names import did_you_mean
from app.domain.errors import ConfigError, NotFoundError

_MAX_PROBLEMS = 100
router = APIRouter(tags=["catalog"])


@router.get(
    "/catalog",
    operation_id="getCatalog",
    summary="Show the running catalog",
    responses=errors(401, 403),
)
async def show_catalog(services: Served, _who: Viewer) -> CatalogAnswer:
    """All remediations, warnings, and why the files' newest state was refused, if it was. Role: viewer."""
    catalog, error = services.catalog.current, services.catalog.last_error
    return CatalogAnswer(
        digest=catalog.digest,
        loaded_at=catalog.loaded_at,
        files=list(catalog.files),
        items=[_item(catalog, name) for name in catalog.remediations],
        warnings=[str(warning) for warning in catalog.warnings],
        last_reload_error=None if error is None else _problems(error),
    )


@router.get(
    "/catalog/{name}",
    operation_id="getCatalogEntry",
    summary="Show one remediation of the running catalog",
    responses=errors(401, 403, 404, 422),
)
async def show_remediation(
    services: Served, _who: Viewer, name: Annotated[str, Path(description="The remediation's name.")]
) -> RemediationAnswer:
    """With all defaults filled in. Role: viewer."""
    catalog = services.catalog.current
    remediation = catalog.get(name)
    if remediation is None:
        raise NotFoundError(f"there is no remediation {name[:63]!r}{did_you_mean(name[:63], catalog.remediations)}")
    return RemediationAnswer(
        **_item(catalog, name).model_dump(), specification=remediation.to_json(), digest=catalog.digest
    )


@router.post(
    "/-/reload",
    operation_id="reload",
    summary="Read the catalog's files again",
    responses=errors(401, 403, 422),
    tags=["operation"],
)
async def reload(services: Served, _who: Admin) -> Reloaded:
    """When anything in them is wrong, every problem is answered and the running catalog stays. Role: admin."""
    await services.catalog.reload(services.clock())
    catalog, error = services.catalog.current, services.catalog.last_error
    if error is not None:
        detail = f"the files were refused; the catalog {catalog.short_digest} stays active"
        raise ProblemError(422, ProblemReason.CATALOG_INVALID, detail, errors=_problems(error))
    return Reloaded(
        digest=catalog.digest,
        loaded_at=catalog.loaded_at,
        remediations=len(catalog),
        warnings=[str(warning) for warning in catalog.warnings],
    )


def _item(catalog: Catalog, name: str) -> CatalogItem:
    remediation = catalog.remediations[name]
    return CatalogItem(
        name=name,
        summary=remediation.summary,
        mode=remediation.mode,
        match=list(remediation.match),
        source=str(catalog.sources[name]),
    )


def _problems(error: ConfigError) -> list[str]:
    shown = [str(diagnostic) for diagnostic in error.diagnostics[:_MAX_PROBLEMS]] or [error.message]
    rest = len(error.diagnostics) - _MAX_PROBLEMS
    return [*shown, f"and {rest} more"] if rest > 0 else shown
