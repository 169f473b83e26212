"""Every error answer is a problem (RFC 9457, `application/problem+json`): the fault and the remedy.

Routes raise ProblemError; `app.api.handlers` turns all other errors into one. A detail is short and repeats no value of
the request, since Alertmanager writes it to its log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import Request, Response
from pydantic import BaseModel, Field

from app.domain.redaction import redact

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
log = structlog.get_logger()


class ProblemReason(StrEnum):
    """Why a request was not served; each is explained in docs/api.md."""

    NOT_JSON = "not_json"
    WRONG_SHAPE = "wrong_shape"
    WRONG_VERSION = "wrong_version"
    CUSTOM_PAYLOAD = "custom_payload"
    TOO_LARGE = "too_large"
    TOO_MANY_ALERTS = "too_many_alerts"
    BUSY = "busy"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    INCOMPLETE_BODY = "incomplete_body"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    CROSS_ORIGIN = "cross_origin"
    UNKNOWN_HOST = "unknown_host"
    NOT_FOUND = "not_found"
    WRONG_PATH = "wrong_path"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    INVALID_QUERY = "invalid_query"
    CONFLICT = "conflict"
    CATALOG_INVALID = "catalog_invalid"
    NOT_READY = "not_ready"
    STORE_UNAVAILABLE = "store_unavailable"
    OUTCOME_UNKNOWN = "outcome_unknown"
    REFUSED = "refused"
    UNEXPECTED = "unexpected"


class Problem(BaseModel):
    """An error answer."""

    type: str = Field(default="about:blank", description="Always about:blank; `reason` tells problems apart.")
    title: str = Field(description="The phrase of the HTTP status.")
    status: int
    detail: str = Field(description="The problem, and the remedy.")
    reason: ProblemReason
    field: str | None = Field(default=None, description="The field of the request that is wrong: alerts[3].startsAt")
    errors: list[str] | None = Field(default=None, description="All problems, where there is more than one.")


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(  # noqa: PLR0913 - the parts of a problem
        self,
        status: int,
        reason: ProblemReason,
        detail: str,
        *,
        field: str | None = None,
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.field = field
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer itself."""
        problem = Problem(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=redact(self.detail),
            reason=self.reason,
            field=self.field,
            errors=[redact(one) for one in self.errors] or None,
        )
        content = problem.model_dump_json(exclude_none=True)
        return Response(content, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def store_unavailable(known: str = " and nothing was recorded") -> ProblemError:
    """The answer that Alertmanager tries again after."""
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        ProblemReason.STORE_UNAVAILABLE,
        f"the store cannot be used now{known}; send it again",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def outcome_unknown(path: str) -> ProblemError:
    """The answer where the store was told to commit, and its own answer was lost."""
    detail = "the store's answer was lost: it is not known whether this was recorded"
    where = _told_by(path)
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE, ProblemReason.OUTCOME_UNKNOWN, f"{detail}; {where} tells, before you try again"
    )


def _told_by(path: str) -> str:
    """Where a person sees whether a request took effect."""
    parts = path.strip("/").split("/")
    match parts:
        case ["remediations", run_id, "retry" | "undo"]:
            return f"GET /remediations/{run_id} and GET /remediations"
        case ["remediations", run_id, _]:
            return f"GET /remediations/{run_id}"
        case ["pause"] | ["catalog", _, "pause" | "resume"]:
            return "GET /pause"
        case ["catalog", name, "run"]:
            return f"GET /remediations?remediation={name}"
        case ["catalog", name, *_]:
            return f"GET /catalog/{name}"
    return "GET /events"


def unexpected(request: Request, error: Exception) -> Response:
    """Answer a request that failed for an unexpected reason; the log has it."""
    log.error("a request failed unexpectedly", method=request.method, path=request.url.path[:200], exc_info=error)
    detail = "something unexpected happened; the log has the details"
    return ProblemError(500, ProblemReason.UNEXPECTED, detail).response()


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route's error answers."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }
