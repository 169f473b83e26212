"""The needs of each remediation in other systems: its backends read them from it, `preflight` asks."""

from __future__ import annotations

from app.backends.preflight import Asking, Need
from app.backends.registry import backends
from app.catalog.templates import contains_template
from app.domain.findings import Finding
from app.domain.remediation import Remediation
from app.engine.context import EngineContext


def needs_of(remediation: Remediation, parts: EngineContext) -> list[Need | Finding]:
    """Return the questions to ask, and the answers that need no question; questions about the target come first."""
    asking = Asking(
        remediation=remediation,
        clients=parts.clients,
        scope=parts.policy.scope,
        channel=parts.policy.channel,
        now=parts.clock,
        is_open=contains_template,
    )
    of_target = "" if remediation.target is None else remediation.target.backend
    ordered = sorted(backends().values(), key=lambda one: one.name != of_target)
    return [one for backend in ordered for one in backend.needs(asking)]
