"""Receives what Alertmanager posts: who, how much, what — then one commit, then the answer.

Nothing here touches the network or works per alert; taking the alerts in is the engine's business. Every answer but 503
means that Alertmanager will not try again before the group's next interval, so 503 is given only when nothing was
recorded.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ValidationError

from app.api.auth import Identity, Role, authorize, documented
from app.api.body import read_body
from app.api.problems import ProblemError, ProblemReason, errors, store_unavailable
from app.api.refusals import group_of, refusal
from app.api.services import Served, Services
from app.domain.alerts import Notification, parse_notification
from app.domain.errors import StoreUnavailableError
from app.store.inbox import Received

PATH = "/webhooks/alertmanager"
_LONGEST_SHOWN = 200
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
log = structlog.get_logger()
router = APIRouter(tags=["notifications"])


class Accepted(BaseModel):
    """The notification is recorded; its alerts will be taken in."""

    notification: Literal["accepted"] = "accepted"
    alerts: int


async def _notifier(request: Request, services: Served, _documented: Annotated[None, Depends(documented)]) -> Identity:
    """Authenticate, and count and log who is not let in."""
    try:
        return authorize(request, Role.ALERTMANAGER)
    except ProblemError as problem:
        _refused(services, problem, request.client.host if request.client else "")
        raise


@router.post(
    PATH,
    status_code=HTTPStatus.ACCEPTED,
    operation_id="receiveNotification",
    summary="Receive a notification of Alertmanager (webhook payload version 4)",
    responses=errors(400, 401, 403, 413, 415, 422, 503),
    openapi_extra=_BODY,
)
async def receive(request: Request, services: Served, _notifier: Annotated[Identity, Depends(_notifier)]) -> Accepted:
    """Answered after the commit. Role: alertmanager."""
    body = b""
    try:
        with services.gate.entered(request.headers.get("content-length", "")):
            body = await read_body(request, services.limits.max_body_bytes)
            notification = _parse(body, services.limits.max_alerts)
            await _record(services, notification, body)
    except ProblemError as problem:
        again = problem.reason in _AGAIN
        _refused(services, problem, "" if again else group_of(body))
        raise
    return Accepted(alerts=len(notification.alerts))


def _parse(body: bytes, max_alerts: int) -> Notification:
    if not body:
        raise ProblemError(400, ProblemReason.NOT_JSON, "the body is empty; Alertmanager sends a JSON object")
    if body.count(b'"fingerprint"') > max_alerts:
        # An alert has one each. Counted in the bytes, so that millions of alerts cost no more than their transport.
        detail = f"more than {max_alerts} alerts; raise max_alerts or group alerts more finely (group_by)"
        raise ProblemError(413, ProblemReason.TOO_MANY_ALERTS, detail)
    try:
        return parse_notification(body)
    except ValidationError as error:
        raise refusal(error) from error


async def _record(services: Services, notification: Notification, body: bytes) -> None:
    now = services.clock()
    received = Received(
        received_at=now,
        receiver=notification.receiver,
        group_key=notification.group_key,
        alerts=len(notification.alerts),
        truncated=notification.truncated_alerts,
        body=body,
    )
    try:
        await services.inbox.record(received, services.limits.record_timeout_seconds)
    except StoreUnavailableError as error:
        raise store_unavailable() from error
    services.metrics.notifications.labels("accepted").inc()
    services.metrics.last_notification.set(now.timestamp())
    if notification.truncated_alerts:
        _truncated(services, notification)


def _truncated(services: Services, notification: Notification) -> None:
    services.metrics.alerts_truncated.inc(notification.truncated_alerts)
    group = notification.group_key[:_LONGEST_SHOWN]
    if services.logged.first("truncated", group):
        log.warning(
            "Alertmanager left alerts out of a notification; remove max_alerts from the receiver",
            receiver=notification.receiver[:_LONGEST_SHOWN],
            group=group,
            missing=notification.truncated_alerts,
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
