"""What Alertmanager sends: notifications (webhook payload version 4) and the alerts in them.

Unknown fields are accepted, since releases add them (`notification_reason` in 0.32, `routeLabels` in 0.34).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

# Go's zero time: what `endsAt` holds while an alert fires.
UNSET_YEAR = 1

Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,32}$")]


class Alert(BaseModel):
    """One alert of a notification; `status` is its own, whatever the group's status says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Literal["firing", "resolved"]
    labels: dict[str, str] = Field(min_length=1)
    annotations: dict[str, str] = Field(default_factory=dict)
    starts_at: AwareDatetime = Field(alias="startsAt")
    ends_at: AwareDatetime | None = Field(default=None, alias="endsAt")
    generator_url: str = Field(default="", alias="generatorURL")
    fingerprint: Fingerprint

    @property
    def is_firing(self) -> bool:
        """Whether this alert was firing when the notification was made."""
        return self.status == "firing"

    @property
    def resolved_at(self) -> datetime | None:
        """When the alert ended; None while `endsAt` is unset."""
        return None if self.ends_at is None or self.ends_at.year == UNSET_YEAR else self.ends_at.astimezone(UTC)


class Notification(BaseModel):
    """One POST of Alertmanager."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal["4"]
    receiver: str
    status: Literal["firing", "resolved"]
    alerts: list[Alert]
    group_key: str = Field(default="", alias="groupKey")
    truncated_alerts: int = Field(default=0, ge=0, alias="truncatedAlerts")
    external_url: str = Field(default="", alias="externalURL")


def parse_notification(body: bytes) -> Notification:
    """Read a webhook body; raises pydantic.ValidationError.

    A NUL in a label is legal UTF-8 for Prometheus and cannot be stored by PostgreSQL; it becomes U+FFFD.
    """
    if b"\\u0000" not in body:
        return Notification.model_validate_json(body)
    return Notification.model_validate(_without_nul(json.loads(body)))


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value


def identity(labels: Mapping[str, str], fingerprint: str, ignored: Collection[str]) -> str:
    """Name the alert across the replicas of an HA Prometheus: its fingerprint, or a hash that leaves `ignored` out."""
    if not any(name in labels for name in ignored):
        return fingerprint
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(labels):
        if name not in ignored:
            digest.update(f"{len(name)}:{name}={len(labels[name])}:{labels[name]};".encode())
    return digest.hexdigest()
