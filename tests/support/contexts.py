"""Plans, applies and observes as the engine does, each time with clients of its own that are closed afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, TypeVar

from app.backends.action import Action, Context
from app.backends.check import Check, CheckContext
from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.scope import Scope
from app.domain.model import JsonObject
from app.domain.plans import Observation, PlannedStep, Target
from tests.support.aio import run

T = TypeVar("T")

NO_TARGET = Target(backend="none", key="none")
RUN_ID = "run-1"


def with_clients(connections: Connections, use: Callable[[Clients], Awaitable[T]]) -> T:
    """Run `use` with fresh clients."""

    async def opened() -> T:
        clients = Clients(connections, Scope())
        async with aclosing(_Closing(clients)):
            return await use(clients)

    return run(opened())


class _Closing:
    """Gives `Clients.close` the name that aclosing calls."""

    def __init__(self, clients: Clients) -> None:
        self.aclose = clients.close


def plan(connections: Connections, action: Action[Any], target: Target = NO_TARGET, **given: Any) -> PlannedStep:
    """Plan a step with the arguments as YAML would give them."""
    params = action.Params.model_validate(given)
    return with_clients(connections, lambda clients: action.plan(_context(clients, target), params))


def apply(connections: Connections, action: Action[Any], step: PlannedStep, target: Target = NO_TARGET) -> JsonObject:
    """Apply a step that comes out of the store."""
    stored = PlannedStep.model_validate_json(step.model_dump_json())
    return with_clients(connections, lambda clients: action.apply(_context(clients, target), stored))


def observe(
    connections: Connections, check: Check[Any], target: Target = NO_TARGET, *, firing: bool = True, **given: Any
) -> Observation:
    """Look once."""
    params = check.Params.model_validate(given)

    def use(clients: Clients) -> Awaitable[Observation]:
        now = datetime.now(UTC)
        return check.observe(CheckContext(clients, clients.scope, target, now, firing=firing), params)

    return with_clients(connections, use)


def _context(clients: Clients, target: Target) -> Context:
    return Context(clients=clients, scope=clients.scope, run_id=RUN_ID, target=target, now=datetime.now(UTC))
