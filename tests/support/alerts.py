"""Alerts and notifications as Alertmanager sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from app.domain.alerts import Alert

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def alert(
    status: str = "firing",
    *,
    starts_at: datetime = NOW,
    ends_at: datetime | None = None,
    fingerprint: str | None = None,
    annotations: Mapping[str, str] | None = None,
    **labels: str,
) -> dict[str, Any]:
    """One alert of a notification; the fingerprint follows from the labels unless it is given."""
    named = {"alertname": "Down"} | labels
    made = f"{crc32(json.dumps(named, sort_keys=True).encode()):016x}"
    over = ends_at or starts_at + timedelta(minutes=1)
    return {
        "status": status,
        "labels": named,
        "annotations": dict(annotations or {}),
        "startsAt": starts_at.isoformat(),
        "endsAt": over.isoformat() if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": fingerprint or made,
    }


def parsed(status: str = "firing", **fields: Any) -> Alert:
    """The same as the domain reads it."""
    return Alert.model_validate(alert(status, **fields))


def notification(*alerts: Mapping[str, Any]) -> bytes:
    """One POST of Alertmanager."""
    firing = any(one["status"] == "firing" for one in alerts)
    body = {
        "version": "4",
        "receiver": "remediator",
        "status": "firing" if firing else "resolved",
        "groupKey": '{}:{alertname="Down"}',
        "truncatedAlerts": 0,
        "alerts": list(alerts),
    }
    return json.dumps(body).encode()
