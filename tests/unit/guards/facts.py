"""Facts about a run against which nothing stands; a test changes the one that it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.domain.plans import Plan, PlannedStep, Target
from app.domain.remediation import Mode, Risk
from app.guards.base import Facts
from tests.support.alerts import NOW
from tests.support.engine import EVERYWHERE, read

TARGET = Target(backend="redis", key="redis:cache/0", name="0")
STEP = PlannedStep(action="redis.flush", summary="flush", risk=Risk.LOW)


def plan(*steps: PlannedStep, target: Target = TARGET) -> Plan:
    """A plan of these steps."""
    return Plan(rung=0, target=target, steps=steps or (STEP,))


def facts(*, limits: dict[str, Any] | None = None, entry: dict[str, Any] | None = None, **changed: Any) -> Facts:
    """Facts that every guard allows, with some changed."""
    usual = {"cooldown": "10m", "rate": "3/1h", "attempts": 1}
    remediation = read(**({"limits": usual | (limits or {})} | (entry or {})))
    fine = Facts(
        now=NOW,
        remediation=remediation,
        ceiling=Mode.AUTO,
        scope=EVERYWHERE,
        alert_starts_at=NOW,
        attempt=1,
        admitted=False,
        plan=plan(),
    )
    return replace(fine, **changed)
