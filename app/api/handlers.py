"""Turns everything that ends a request into a problem: our errors, the framework's, and unexpected ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from app.api import webhook
from app.api.problems import ProblemError, ProblemReason, outcome_unknown, store_unavailable, unexpected
from app.api.refusals import field_path
from app.api.services import Services
from app.domain.errors import AppError, CommitUnknownError, ConflictError, NotFoundError, StoreUnavailableError

_REASONS = {404: ProblemReason.NOT_FOUND, 405: ProblemReason.METHOD_NOT_ALLOWED}
log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Give the application its handlers."""
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(AppError, _ours)
    app.add_exception_handler(RequestValidationError, _query)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - the type that it is registered for
    return error.response()


async def _ours(request: Request, error: Exception) -> Response:
    match error:
        case CommitUnknownError():
            log.warning("it is not known whether a request was recorded", path=request.url.path[:200])
            return outcome_unknown(request.url.path[:200]).response()
        case StoreUnavailableError():
            log.warning("the store is not available", error=error.message)
            return store_unavailable().response()
        case NotFoundError():
            return ProblemError(404, ProblemReason.NOT_FOUND, error.message).response()
        case ConflictError():
            return ProblemError(409, ProblemReason.CONFLICT, error.message).response()
    raise error


async def _query(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - the type that it is registered for
    found = error.errors()
    words = [f"{field_path(one['loc'][1:])} {_words(one['msg'])}".strip() for one in found]
    field = field_path(found[0]["loc"][1:2]) or None
    return ProblemError(422, ProblemReason.INVALID_QUERY, words[0], field=field, errors=words).response()


def _words(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should", "should")


async def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the type that it is registered for
    if error.status_code == 404 and request.method == "POST":  # noqa: PLR2004 - HTTP
        return _wrong_path(request)
    reason = _REASONS.get(error.status_code, ProblemReason.REFUSED)
    detail = str(error.detail)
    if error.status_code == 404:  # noqa: PLR2004 - HTTP
        detail = "this path does not exist; /openapi.json lists all paths"
    if error.status_code == 405:  # noqa: PLR2004 - HTTP
        allowed = _methods(request)
        error.headers = {**(error.headers or {}), "Allow": allowed}
        detail = f"{request.method} is not possible here; use {allowed}"
        if request.url.path == webhook.PATH:
            detail += ". This is where Alertmanager posts its notifications (webhook_configs url)"
    return ProblemError(error.status_code, reason, detail, headers=error.headers).response()


def _methods(request: Request) -> str:
    """Return the methods of a path, over all routes that it has; the framework names only those of the first one."""
    found: set[str] = set()
    for route in _flat(request.app.routes):
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(found)) or "another method"


def _flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Routes, those of included routers too."""
    for route in routes:
        router = getattr(route, "original_router", None)
        if router is None:
            yield route
        else:
            yield from _flat(router.routes)


def _wrong_path(request: Request) -> Response:
    services: Services = request.app.state.services
    services.metrics.notifications.labels("wrong_path").inc()
    path = request.scope.get("raw_path", b"")[:200].decode("ascii", "backslashreplace")  # as it was sent, escaped
    if services.logged.first("wrong path", path):
        log.warning("a POST to a path that does not exist", path=path)
    where = f"/openapi.json lists all paths; Alertmanager's webhook_configs url must end with {webhook.PATH}"
    detail = f"nothing is received at this path; {where}"
    return ProblemError(404, ProblemReason.WRONG_PATH, detail).response()


async def _unexpected(request: Request, error: Exception) -> Response:
    return unexpected(request, error)
