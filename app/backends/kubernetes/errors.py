"""Turns answers of the API server into the error tree; only the Kubernetes client calls it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from app.backends.kubernetes.objects import ObjectRef
from app.domain.errors import ActionError, PermanentError, TransientError
from app.domain.reasons import Reason
from app.domain.redaction import redact

_SHOWN = 300
# Gone: the rest of a list that was begun too long ago; to be asked for anew.
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.GONE})


class StaleWriteError(PermanentError):
    """The object changed between the read and the write that depends on it."""

    reason = Reason.CHANGED_SINCE_PLANNED


@dataclass(frozen=True, slots=True)
class Call:
    """One call in the words of a role: verb, object (or collection) and subresource."""

    verb: str
    ref: ObjectRef
    subresource: str = ""

    def __str__(self) -> str:
        resource = f"{self.ref.resource}/{self.subresource}" if self.subresource else self.ref.resource
        group = f" ({self.ref.group})" if self.ref.group else ""
        return f"{self.verb} {resource}{group} in namespace {self.ref.namespace}"


def error_of(call: Call, status: int, body: bytes, headers: Mapping[str, str]) -> ActionError:
    """The error for an answer that is not a success, by its status and the reason that the API server gives with it."""
    told = _status(body)
    reason, said = str(told.get("reason") or ""), _words(told, body)
    if status == HTTPStatus.UNAUTHORIZED:
        message = f"the cluster did not accept the remediator's credentials to {call}: {said}"
        return PermanentError(message, reason=Reason.FORBIDDEN)
    if status == HTTPStatus.FORBIDDEN:
        return PermanentError(f"not allowed to {call}: {said}", reason=Reason.FORBIDDEN)
    if status == HTTPStatus.NOT_FOUND and reason == "NotFound" and call.ref.name:
        return PermanentError(f"{call.ref} does not exist", reason=Reason.TARGET_NOT_FOUND)
    if status == HTTPStatus.CONFLICT and reason == "Conflict":
        return StaleWriteError(f"{call.ref} changed in the meantime: {said}")
    message = f"the cluster answered {status} when asked to {call}: {said}"
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientError(message, retry_after=_retry_after(headers))
    return PermanentError(message)


def unreached(error: Exception) -> str:
    """Why no answer came. Some errors of the library repeat the URL of a proxy, and with it a password."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"it, or the proxy before it, answered {error.status} and nothing of its API"
    if isinstance(error, aiohttp.InvalidURL):
        return "its URL, or the URL of the proxy before it, cannot be read"
    return str(error)


def _status(body: bytes) -> Mapping[str, Any]:
    """The Status object that the API server explains a refusal with; empty where something else has answered."""
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) and status.get("kind", "Status") == "Status" else {}


def _words(status: Mapping[str, Any], body: bytes) -> str:
    said = status.get("message") or ("" if status else body.decode(errors="replace"))
    return redact(" ".join(str(said or "no explanation").split()))[:_SHOWN]


def _retry_after(headers: Mapping[str, str]) -> float:
    seconds = headers.get("Retry-After", "")
    return float(seconds[:9]) if seconds.isdecimal() else 0.0
