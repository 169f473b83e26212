"""The collaborators of routes; put together once by `app.main` and handed to `create_app`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from app.api.auth import Authenticator
from app.api.gate import Gate
from app.api.log_dedup import Once
from app.catalog.reload import CatalogHolder
from app.domain.findings import Report
from app.engine.context import EngineContext
from app.store.db.database import Database
from app.store.ledger.inbox import Inbox
from app.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one request."""

    max_body_bytes: int = 16 * 1024 * 1024
    max_alerts: int = 20_000
    max_requests: int = 128
    record_timeout_seconds: float = 10.0


@dataclass(frozen=True)
class Services:
    """The HTTP edge's collaborators."""

    database: Database
    inbox: Inbox
    catalog: CatalogHolder
    metrics: Metrics
    auth: Authenticator
    clock: Callable[[], datetime]
    ready: Callable[[], Awaitable[list[str]]]  # the causes that keep this replica from serving
    work: asyncio.Event  # set when a run may have become due
    parts: EngineContext  # for people's decisions about remediations
    preflight: Callable[[str], Report | None] = lambda _: None  # the findings about a remediation
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # set when streams must end
    limits: Limits = Limits()
    logged: Once = field(default_factory=Once)  # refusals that the log has seen
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        """The gate is as wide as the limits say."""
        object.__setattr__(self, "gate", Gate(self.limits.max_requests, self.limits.max_body_bytes))


async def of_request(request: Request) -> Services:
    """The services of the application that serves this request."""
    services: Services = request.app.state.services
    return services


Served = Annotated[Services, Depends(of_request)]
