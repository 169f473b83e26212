"""Facts for guards from outside the store; asked before a decision, never within its transaction."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from app.domain.model import Value


class Standing(StrEnum):
    """How Alertmanager sees an alert."""

    ACTIVE = "active"
    SILENCED = "silenced"
    INHIBITED = "inhibited"
    MUTED = "muted"
    GONE = "gone"  # it does not have the alert
    UNREACHABLE = "unreachable"


class Freshness(Value):
    """Alertmanager's answer about the alert, and its time."""

    standing: Standing
    message: str
    asked_at: datetime


class Population(Value):
    """The workloads among which the target is, as the cluster sees them."""

    where: str  # for people: "namespace shop"
    total: int
    unhealthy: frozenset[str] = frozenset()  # target keys
    members: frozenset[str] = frozenset()  # target keys
    unknown: str = ""  # why it could not be read; then nothing above counts


class Outside(Value):
    """Everything that one decision asked of the world."""

    freshness: Freshness | None = None
    population: Population | None = None
