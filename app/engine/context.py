"""The collaborators of the engine's stages; put together once by `app.main`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from app.backends.instances import Clients
from app.backends.scope import Scope
from app.catalog.catalog import Catalog
from app.domain.durations import Rate
from app.domain.episodes import EpisodeRules
from app.domain.remediation import Mode
from app.engine.handover import Handover
from app.engine.tenure import Tenure
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.telemetry.metrics import Metrics

_APART_SECONDS = 0.02  # two looks whether another replica has followed the clock


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that decisions depend on."""

    ceiling: Mode = Mode.AUTO
    scope: Scope = field(default_factory=Scope)
    rate: tuple[Rate, ...] = ()  # over all remediations and replicas
    episodes: EpisodeRules = field(default_factory=EpisodeRules)
    concurrency: int = 10  # runs that act at the same time, over all replicas
    storm: tuple[Rate, ...] = (Rate(200, timedelta(minutes=10)),)  # alerts that trigger anything, over all
    storm_pause: timedelta = timedelta(minutes=10)  # how long nothing is touched after a storm
    channel: str | None = None  # the channel of remediations without one
    external_url: str = ""  # where people reach this service; links begin with it
    approval_timeout: timedelta = timedelta(hours=1)
    tell_waiting: timedelta = timedelta(minutes=30)  # how long a run may be deferred untold; 0: for ever
    stability: timedelta = timedelta(seconds=5)  # how long a target must keep a change
    plan_timeout: timedelta = timedelta(seconds=30)
    recheck: timedelta = timedelta(seconds=30)  # how soon a refusal without an end is decided again
    lease: timedelta = timedelta(seconds=30)
    workers: int = 32  # runs that plan at the same time, and as many that apply


@dataclass(frozen=True, slots=True)
class Turn:
    """One transaction of the engine, at one moment."""

    tx: AsyncConnection
    now: datetime
    parts: EngineContext


@dataclass(slots=True)
class Currency:
    """This replica's knowledge of the age of its catalog."""

    served: str | None = None  # which one the store knows that it serves
    newer: frozenset[str] = frozenset()  # by their digests: their runs are left to others
    seen: dict[str, tuple[datetime, float]] = field(default_factory=dict)  # when one was served, and since when known
    looked_at: float = -math.inf  # by the steady clock, as the times in `seen`


class Timekeeping(Protocol):
    """Keeps the clock equal to the store's."""

    async def is_timely(self, tx: AsyncConnection) -> bool:
        """Whether the clock goes by the times that the store has, until the transaction ends; else `compare`."""

    async def compare(self) -> None:
        """Follow the store's time."""


@dataclass(frozen=True)
class EngineContext:
    """The engine's collaborators."""

    database: Database
    catalog: Callable[[], Catalog]
    clients: Clients
    metrics: Metrics
    policy: Policy
    clock: Callable[[], datetime]
    owner: str
    timekeeper: Timekeeping | None = None  # where the clock can be set, or other replicas follow it
    work: asyncio.Event = field(default_factory=asyncio.Event)  # set whenever a run may have become due
    handover: Handover = field(default_factory=Handover)
    outbox: asyncio.Event = field(default_factory=asyncio.Event)  # set whenever a message may have become due
    # Seconds after which a loop looks by itself: longer where it is told even of what nobody has told.
    look_again: float = 1.0
    currency: Currency = field(default_factory=Currency)
    tenures: dict[str, Tenure] = field(default_factory=dict)  # of the runs in work here
    draining: asyncio.Event = field(default_factory=asyncio.Event)  # set when this replica is to let go of its runs

    @asynccontextmanager
    async def turn(self, lock: str | None = None, *, synced: bool = True) -> AsyncIterator[Turn]:
        """A write transaction whose `now` is taken once, when it has begun; `synced` as in `Database.write`.

        It goes by the clock that the store's times go by, also while that is being set.
        """
        while True:
            async with self.database.write(lock, synced=synced) as tx:
                timekeeper = self.timekeeper
                if timekeeper is None or await timekeeper.is_timely(tx):
                    yield Turn(tx, self.clock(), self)
                    return
            await asyncio.sleep(_APART_SECONDS)
            await timekeeper.compare()
