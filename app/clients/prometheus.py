"""Prometheus' query API, or anything that answers like it, for prometheus.query.

Asks only; an answer that is not understood is an error, never an empty result.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from app.clients.connections import PrometheusConnection
from app.clients.http import HttpClient, HttpRequest, HttpResponse
from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.model import Value

_ANSWER_LIMIT = 16 * 1024 * 1024


class Sample(Value):
    """One element of an instant vector, or a scalar without labels."""

    labels: dict[str, str]
    value: float


class PrometheusClient:
    """The Prometheus of the configuration."""

    def __init__(self, http: HttpClient, connection: PrometheusConnection) -> None:
        self._http = http
        self._connection = connection

    async def query(self, expression: str) -> list[Sample]:
        """Evaluate an expression now.

        Raises TransientError when Prometheus could not do it, PermanentError when it never will.
        """
        request = HttpRequest(
            method="POST",
            url=f"{self._connection.url.rstrip('/')}/api/v1/query",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=urlencode({"query": expression}).encode(),
            secret=self._connection.bearer_token,
        )
        try:
            response = await self._http.send(request, _ANSWER_LIMIT)
        except OutcomeUnknownError as error:
            raise TransientError(error.message) from error
        return _samples(_answer(response))


def _answer(response: HttpResponse) -> dict[str, Any]:
    try:
        answer = json.loads(response.body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or answer.get("status") not in {"success", "error"}:
        msg = f"Prometheus answered {response.status} with something that its query API does not send"
        raise TransientError(msg)
    if answer["status"] == "error":
        msg = f"Prometheus: {answer.get('errorType')}: {answer.get('error')}"
        raise (PermanentError if answer.get("errorType") == "bad_data" else TransientError)(msg)
    return answer


def _samples(answer: dict[str, Any]) -> list[Sample]:
    data = answer.get("data") or {}
    match data.get("resultType"), data.get("result"):
        case "vector", [*elements]:
            return [Sample(labels=element["metric"], value=float(element["value"][1])) for element in elements]
        case "scalar", [_, value]:
            return [Sample(labels={}, value=float(value))]
        case kind, _:
            msg = f"the query gives a {kind}; it must give an instant vector or a scalar"
            raise PermanentError(msg)
