"""Prometheus' query API, or anything that answers like it, for prometheus.query.

Asks only; an answer that is not understood, or that says of itself that it is partial, is an error and no result.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.backends.prometheus.backend import PrometheusConnection
from app.backends.web import HttpClient, HttpRequest, HttpResponse, describe, refusal
from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.model import Value
from app.domain.redaction import redact

_ANSWER_LIMIT = 16 * 1024 * 1024
_SHOWN = 300
# A cache in front, such as a query front end's, may hold an answer from before the remediation.
_HEADERS = {"Content-Type": "application/x-www-form-urlencoded", "Cache-Control": "no-cache, no-store"}
_Point = tuple[float, float]


class Sample(Value):
    """One element of an instant vector, or a scalar without labels."""

    labels: dict[str, str]
    value: float


class _Answer(BaseModel):
    """The API's answer, a result or an error; VictoriaMetrics adds `isPartial`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Literal["success", "error"]
    data: dict[str, Any] = Field(default_factory=dict)
    error_type: str = Field(default="", alias="errorType")
    error: str = ""
    warnings: Any = None
    is_partial: Any = Field(default=None, alias="isPartial")

    @property
    def gap(self) -> str:
        """Return the missing part of it, in its own words. `infos` are hints for the author of the expression."""
        if self.warnings:
            told = self.warnings if isinstance(self.warnings, list) else [self.warnings]
            return redact(" ".join("; ".join(map(str, told)).split()))[:_SHOWN]
        return "isPartial is set" if self.is_partial else ""


class _Element(BaseModel):
    metric: dict[str, str]
    value: _Point


_ELEMENTS = TypeAdapter(list[_Element])
_POINT = TypeAdapter(_Point)


class PrometheusClient:
    """The Prometheus of the configuration."""

    def __init__(self, http: HttpClient, connection: PrometheusConnection) -> None:
        self._http = http
        self._connection = connection

    async def query(self, expression: str) -> list[Sample]:
        """Evaluate an expression now.

        Raises TransientError when Prometheus could not do it, or only in part, PermanentError when it never will.
        """
        url = f"{self._connection.url.rstrip('/')}/api/v1/query"
        request = HttpRequest(
            method="POST",
            url=url,
            headers=_HEADERS,
            content=urlencode({"query": expression}).encode(),
            secret=self._connection.bearer_token,
            own=self._connection.headers,
        )
        try:
            response = await self._http.send(request, _ANSWER_LIMIT)
        except OutcomeUnknownError as error:
            raise TransientError(error.message) from error
        answer = _answer(describe(url), response)
        if answer.gap:
            raise TransientError(f"Prometheus' answer is partial, so it proves nothing: {answer.gap}")
        return _samples(answer)


def _answer(where: str, response: HttpResponse) -> _Answer:
    """A success as the API sends it; raises for everything else, by status and error type."""
    if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise refusal(where, response)
    answer = _read(response)
    if answer is None:
        raise _odd(response.status) if response.is_success else refusal(where, response)
    if answer.status == "error":
        message = f"Prometheus: {answer.error_type}: {answer.error}"
        raise (PermanentError if answer.error_type == "bad_data" else TransientError)(message)
    if response.status != HTTPStatus.OK:
        raise _odd(response.status) if response.is_success else refusal(where, response)
    return answer


def _read(response: HttpResponse) -> _Answer | None:
    """The answer, or None where it is none of this API, such as the page of a proxy."""
    if response.content_type not in {"", "application/json"}:
        return None
    try:
        return _Answer.model_validate(json.loads(response.body))
    except (ValueError, RecursionError):
        return None


def _samples(answer: _Answer) -> list[Sample]:
    kind, result = answer.data.get("resultType"), answer.data.get("result")
    try:
        if kind == "vector":
            if isinstance(result, list) and any("histogram" in element for element in result):
                raise PermanentError("the query gives native histograms; it must give numbers")
            elements = _ELEMENTS.validate_python(result)
            return [Sample(labels=element.metric, value=element.value[1]) for element in elements]
        if kind == "scalar":
            return [Sample(labels={}, value=_POINT.validate_python(result)[1])]
    except (ValidationError, TypeError):
        raise _odd() from None
    if kind in {"matrix", "string"}:
        raise PermanentError(f"the query gives a {kind}; it must give an instant vector or a scalar")
    raise _odd()


def _odd(status: int = 200) -> TransientError:
    return TransientError(f"Prometheus answered {status} with something that its query API does not send")
