"""The border that neither a label nor a catalog can move, as guards see it."""

from __future__ import annotations

from typing import Protocol

from app.domain.plans import Plan


class Border(Protocol):
    """The border of all actions; the configuration alone decides it."""

    def plan_objection(self, plan: Plan) -> str | None:
        """Say which part of `plan` is out of scope, or None."""
