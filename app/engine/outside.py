"""Asks the world, before a decision and outside its transaction, what guards must know and the store cannot."""

from __future__ import annotations

from app.domain.outside import Outside
from app.domain.plans import Plan
from app.engine.parts import Parts
from app.store.runs import Run


async def look_outside(parts: Parts, run: Run, plan: Plan) -> Outside:  # noqa: ARG001
    """Whether the alert is fresh, and how the target's population is; never raises: what is not known is said."""
    return Outside()
