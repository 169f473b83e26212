"""Receives Alertmanager's notifications: checks sender, size and form, makes one commit, then answers.

Nothing here touches the network or works per alert; taking the alerts in is the engine's business. Every answer but 503
means that Alertmanager will not try again before the group's next interval, so 503 is given only when nothing was
recorded.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from types import SimpleNamespace
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.types import Receive, Scope, Send

from app.api.auth import Role, authorize, documented
from app.api.body import read_body
from app.api.problems import ProblemError, ProblemReason, errors, store_unavailable, unexpected
from app.api.refusals import group_of, refusal
from app.api.services import Served, Services
from app.domain.alerts import Notification, parse_notification
from app.domain.errors import StoreUnavailableError
from app.store.ledger.inbox import Received

PATH = "/webhooks/alertmanager"
_LONGEST_SHOWN, _MOST_SHOWN = 200, 10
_MARK = b'"fingerprint"'
_AGAIN = {ProblemReason.STORE_UNAVAILABLE, ProblemReason.BUSY}  # Alertmanager sends these again
_RESULTS = {
    ProblemReason.TOO_LARGE: "too_large",
    ProblemReason.TOO_MANY_ALERTS: "too_large",
    ProblemReason.STORE_UNAVAILABLE: "unavailable",
    ProblemReason.BUSY: "unavailable",
    ProblemReason.UNAUTHENTICATED: "unauthorized",
    ProblemReason.FORBIDDEN: "unauthorized",
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Notification"}}},
    }
}
_ROUTE = SimpleNamespace(path=PATH)  # its template, as requests are counted by
log = structlog.get_logger()
router = APIRouter(tags=["notifications"])


class Accepted(BaseModel):
    """The notification is recorded; its alerts will be taken in."""

    notification: Literal["accepted"] = "accepted"
    alerts: int = Field(description="How many were recorded.")
    set_aside: int | None = Field(default=None, description="How many of them nothing is done about, if any.")


@router.post(
    PATH,
    status_code=HTTPStatus.ACCEPTED,
    operation_id="receiveNotification",
    summary="Receive a notification of Alertmanager (webhook payload version 4)",
    response_model=Accepted,
    responses=errors(400, 401, 403, 413, 415, 422, 503),
    openapi_extra=_BODY,
)
async def receive(request: Request, services: Served, _documented: Annotated[None, Depends(documented)]) -> Response:
    """Answered after the commit. Role: alertmanager."""
    return await _receive(request, services)


class Receiver:
    """The same without the framework, which would take longer than all of its work: plain ASGI."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def is_for(self, scope: Scope) -> bool:
        """Whether a request is a notification."""
        return bool(scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one notification."""
        scope["app"], scope["route"] = self._app, _ROUTE
        request = Request(scope, receive)
        try:
            response = await _receive(request, self._app.state.services)
        except ProblemError as problem:
            response = problem.response()
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, the sender gets an answer
            response = unexpected(request, error)
        await response(scope, receive, send)


async def _receive(request: Request, services: Services) -> Response:
    body = b""
    try:
        authorize(request, Role.ALERTMANAGER)
    except ProblemError as problem:
        _refused(services, problem, request.client.host if request.client else "")
        raise
    try:
        with services.gate.entered(request.headers.get("content-length", "")):
            body = await read_body(request, services.limits.max_body_bytes)
            received, set_aside = _read(services, body)
            await _record(services, received)
    except ProblemError as problem:
        again = problem.reason in _AGAIN
        _refused(services, problem, "" if again else group_of(body))
        raise
    return _accepted(received.alerts, set_aside or None)


@lru_cache(maxsize=128)
def _accepted(alerts: int, set_aside: int | None) -> Response:
    """Made once for each number of alerts, as there are few of those."""
    answer = Accepted(alerts=alerts, set_aside=set_aside).model_dump_json(exclude_none=True)
    return Response(answer, HTTPStatus.ACCEPTED, media_type="application/json")


def _parse(body: bytes, max_alerts: int) -> Notification:
    if not body:
        raise ProblemError(400, ProblemReason.NOT_JSON, "the body is empty; Alertmanager sends a JSON object")
    if len(body) > max_alerts * len(_MARK) and body.count(_MARK) > max_alerts:
        # An alert has one each. Counted in the bytes, so that millions of alerts cost no more than their transport.
        detail = f"more than {max_alerts} alerts; raise max_alerts or group alerts more finely (group_by)"
        raise ProblemError(413, ProblemReason.TOO_MANY_ALERTS, detail)
    try:
        return parse_notification(body)
    except ValidationError as error:
        raise refusal(error) from error


def _read(services: Services, body: bytes) -> tuple[Received, int]:
    """The notification to record, and how many of its alerts are set aside.

    Its alerts are not kept while others are read, since take-in reads them.
    """
    notification = _parse(body, services.limits.max_alerts)
    unreadable = notification.unreadable
    if unreadable:
        _unreadable(services, notification)
    received = Received(
        received_at=services.clock(),
        receiver=notification.receiver,
        group_key=notification.group_key,
        alerts=len(notification.alerts) + len(unreadable),
        truncated=notification.truncated_alerts,
        body=body,
    )
    return received, notification.defects + len(unreadable)


def _unreadable(services: Services, notification: Notification) -> None:
    group = notification.group_key[:_LONGEST_SHOWN]
    if services.logged.first("unreadable", group):
        log.warning(
            "entries of a notification are no alerts and are set aside; the others are taken in",
            group=group,
            entries=[f"alerts[{number}]" for number in notification.unreadable[:_MOST_SHOWN]],
        )


async def _record(services: Services, received: Received) -> None:
    try:
        await services.inbox.record(received, services.limits.record_timeout_seconds)
    except StoreUnavailableError as error:
        raise store_unavailable(known="") from error  # it may be recorded, and counts once
    services.metrics.accepted.inc()
    services.metrics.last_notification.set(received.received_at.timestamp())
    if received.truncated:
        _truncated(services, received)


def _truncated(services: Services, received: Received) -> None:
    services.metrics.alerts_truncated.inc(received.truncated)
    group = received.group_key[:_LONGEST_SHOWN]
    if services.logged.first("truncated", group):
        log.warning(
            "Alertmanager left alerts out of a notification; remove max_alerts from the receiver",
            receiver=received.receiver[:_LONGEST_SHOWN],
            group=group,
            missing=received.truncated,
        )


def _refused(services: Services, problem: ProblemError, whose: str) -> None:
    """Count a refusal; log it once for its group, since Alertmanager sends it again with every interval."""
    services.metrics.notifications.labels(_RESULTS.get(problem.reason, "invalid")).inc()
    whose = whose[:_LONGEST_SHOWN]
    again = problem.reason in _AGAIN
    if again or services.logged.first(problem.reason, problem.field, whose):
        log.warning(
            "notification refused", status=problem.status, reason=problem.reason, detail=problem.detail, group=whose
        )
