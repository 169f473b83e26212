"""The engine of one replica in this process: real store, clients and loops, and a clock that can be moved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml
from sqlalchemy import select
from sqlalchemy.engine import Row

from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.scope import Scope
from app.catalog.catalog import Catalog
from app.catalog.loader import load
from app.domain.remediation import Remediation
from app.domain.states import RunState
from app.engine.clock import Timekeeper
from app.engine.context import EngineContext, Policy
from app.engine.stages.intake import take_in
from app.engine.worker import Worker
from app.store.db.database import Database
from app.store.db.schema import event, run, step
from app.store.ledger.inbox import Inbox, Received
from app.store.migrations.migrate import migrate
from app.telemetry.metrics import Metrics
from tests.support.alerts import alert, notification

T = TypeVar("T")
_POLL_SECONDS = 0.01
EVERYWHERE = Scope(
    kubernetes={"namespaces": ("*",)},
    postgres={"databases": ("*",)},
    redis={"databases": ("*",)},
    http={"hosts": ("*",)},
)


@dataclass
class Clock:
    """Runs like a real one, and can be put forward."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        """The time now."""
        return datetime.now(UTC) + self.ahead


class Shelf:
    """The catalog of one replica, which a test can replace."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self.put()

    def put(self, *remediations: Mapping[str, Any], freezes: Sequence[Mapping[str, Any]] = ()) -> None:
        """Load another catalog, as a reload does."""
        content = {"remediations": [dict(one) for one in remediations], "freezes": [dict(one) for one in freezes]}
        self._file.write_text(yaml.safe_dump(content))
        self.current = load([self._file], self._clock())

    def __call__(self) -> Catalog:
        """The current catalog."""
        return self.current


class Engine:
    """One replica; `deliver` is what the webhook and take-in do, the worker runs beside it."""

    catalog: Shelf

    def __init__(self, parts: EngineContext, clock: Clock) -> None:
        self.parts = parts
        self.clock = clock
        self.database = parts.database
        self.box = Inbox(self.database)
        self.worker = Worker(parts)
        self.loops: list[asyncio.Task[None]] = []

    async def record(self, *alerts: Mapping[str, Any], body: bytes | None = None) -> None:
        """Commit one notification to the inbox, as the webhook does."""
        given = notification(*alerts) if body is None else body
        await self.box.record(Received(self.clock(), "remediator", "key", len(alerts), 0, given), 10)

    async def deliver(self, *alerts: Mapping[str, Any]) -> None:
        """Record one notification and take in all that waits."""
        await self.record(*alerts)
        while await take_in(self.parts):
            continue

    def firing(self, **labels: Any) -> dict[str, Any]:
        """An alert that begins to fire now."""
        return alert(starts_at=self.clock(), **labels)

    async def fire(self, **labels: Any) -> None:
        """Deliver one alert that begins to fire now."""
        await self.deliver(self.firing(**labels))

    async def resolve(self, **labels: Any) -> None:
        """Deliver the end of an alert that was fired before."""
        await self.deliver(alert("resolved", starts_at=self.clock(), ends_at=self.clock(), **labels))

    def forward(self, by: timedelta) -> None:
        """Put the clock forward and let the worker notice."""
        self.clock.ahead += by
        self.parts.work.set()

    async def runs(self) -> list[Row[Any]]:
        """Every run of the ledger, oldest first."""
        async with self.database.read() as tx:
            return list(await tx.execute(select(run).order_by(run.c.id)))

    async def steps(self) -> list[Row[Any]]:
        """Every step of the ledger, in order."""
        async with self.database.read() as tx:
            return list(await tx.execute(select(step).order_by(step.c.id)))

    async def kinds(self, run_id: str) -> list[str]:
        """The kinds of a run's events, in order."""
        async with self.database.read() as tx:
            query = select(event.c.kind).where(event.c.run_id == run_id).order_by(event.c.id)
            return [kind for (kind,) in await tx.execute(query)]

    async def reached(self, *states: str, count: int | None = None, seconds: float = 10) -> list[Row[Any]]:
        """Every run, once there are `count` (or any) and all of them are in one of these states."""

        async def there() -> list[Row[Any]]:
            found = await self.runs()
            enough = found if count is None else len(found) == count
            return found if enough and all(row.state in states for row in found) else []

        return await until(there, seconds, f"runs to be {' or '.join(states)}", self.runs)

    async def ended(self, count: int | None = None, seconds: float = 10) -> list[Row[Any]]:
        """Every run, once all are in a final state."""
        return await self.reached(*(state for state in RunState if state.is_final), count=count, seconds=seconds)


async def until(
    question: Callable[[], Awaitable[T]],
    seconds: float,
    what: str,
    seen: Callable[[], Awaitable[object]] | None = None,
) -> T:
    """The first true answer; TimeoutError says what was waited for and what there was instead."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}; there is {await seen() if seen else answer}")
        await asyncio.sleep(_POLL_SECONDS)


def remediation(**fields: Any) -> dict[str, Any]:
    """A catalog entry that acts at once, with what a test cares about put over it."""
    return {
        "name": "poke",
        "summary": "Poke the service.",
        "matchers": ['alertname="Down"'],
        "mode": "auto",
        "limits": {"cooldown": "0s", "rate": "1000/1h"},
    } | fields


def read(**fields: Any) -> Remediation:
    """The same as the engine sees it, with a step that nobody runs."""
    steps = {"steps": [{"action": "http.request", "with": {"url": "http://127.0.0.1:9/"}}]}
    return Remediation.model_validate(remediation(**(steps | fields)))


@asynccontextmanager
async def engine(
    store: str,
    directory: Path,
    *remediations: Mapping[str, Any],
    connections: Connections | None = None,
    clock: Clock | None = None,
    working: bool = True,
    owner: str = "replica-1",
    timed: bool = False,
    **policy: Any,
) -> AsyncIterator[Engine]:
    """Run one replica on a store; `working=False` leaves the worker's loops out, `timed` goes by the store's clock."""
    clock = clock or Clock()
    catalog = Shelf(directory / f"catalog-{owner}.yaml", clock)
    catalog.put(*remediations)
    rules = replace(Policy(recheck=timedelta(milliseconds=200), scope=EVERYWHERE), **policy)
    database = Database(store)
    await migrate(database)
    clients = Clients(connections or Connections(), rules.scope)
    parts = EngineContext(database, catalog, clients, Metrics("test"), rules, clock, owner)
    if timed:
        keeper = Timekeeper(database, clock, rules.lease)
        await keeper.start()
        parts = replace(parts, clock=keeper, timekeeper=keeper)
    replica = Engine(parts, clock)
    replica.catalog = catalog
    replica.loops.append(asyncio.create_task(replica.box.commit_forever()))
    if working:
        replica.loops.append(asyncio.create_task(replica.worker.work_forever()))
        replica.loops.append(asyncio.create_task(replica.worker.renew_forever()))
    try:
        yield replica
    finally:
        for loop in replica.loops:
            loop.cancel()
        await asyncio.gather(*replica.loops, return_exceptions=True)
        await replica.worker.drain(1)
        await clients.close()
        await database.close()


def sqlite(directory: Path) -> str:
    """The URL of an SQLite store in this directory."""
    return f"sqlite:///{directory / 'store.db'}"
