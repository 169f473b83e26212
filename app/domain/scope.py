"""The border that neither a label nor a catalog can move, as guards see it."""

from __future__ import annotations

from typing import Protocol

from app.domain.plans import Plan


class Border(Protocol):
    """What may be touched; the configuration alone decides it."""

    def plan_objection(self, plan: Plan) -> str | None:
        """Say what in `plan` is out of scope, or None."""
