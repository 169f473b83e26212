"""Engines that a state machine moves step by step over one store, with faults where it wants them."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import yaml
from sqlalchemy import func, select
from sqlalchemy.engine import Row

from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.redis.backend import RedisConnection
from app.backends.scope import Scope
from app.backends.secrets import SecretSource
from app.catalog.catalog import Catalog
from app.catalog.loader import load
from app.domain import former_names
from app.domain.errors import AppError, LeaseLostError, StoreUnavailableError
from app.domain.remediation import Mode
from app.domain.states import RunState
from app.engine.background import housekeeping
from app.engine.context import EngineContext, Policy
from app.engine.outcomes import effectiveness
from app.engine.pipeline import advance
from app.engine.stages import intake
from app.engine.tenure import Tenure
from app.engine.worker import Worker
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.schema import episode, event, run
from app.store.ledger import inbox, leases
from app.store.ledger.inbox import Inbox, Received
from app.store.ledger.leases import Claimant
from app.store.ledger.runs import Run
from app.telemetry.metrics import Metrics
from tests.stateful.targets import ACTIONS, CHECKS, CrashError
from tests.support.alerts import NOW, notification

LEASE = timedelta(seconds=30)
_PLAIN = [
    column for column in run.c if column.name not in {"spec", "plan", "labels", "annotations", "decisions", "setback"}
]
_names = count(1)
_acting: ContextVar[EngineContext] = ContextVar("acting")  # the engine that the code of an action runs in


@dataclass
class Freeze:
    """Stops the one process that works at the transaction's begin or end that is due, until it is woken."""

    left: int
    is_frozen: asyncio.Event = field(default_factory=asyncio.Event)
    is_woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def pass_by(self) -> None:
        """Stand still where it is due."""
        self.left -= 1
        if self.left == 0:
            self.is_frozen.set()
            await self.is_woken.wait()


class Faulty(Database):
    """A store that goes away, or whose process dies around a commit, when told."""

    fault = ""
    freeze: Freeze | None = None

    @asynccontextmanager
    async def write(self, lock: str | None = None, **how: bool) -> AsyncIterator[AsyncConnection]:
        """As the real one, with the fault that is due."""
        fault, self.fault = self.fault, ""
        if self.freeze is not None:
            await self.freeze.pass_by()
        if fault == "away":
            raise StoreUnavailableError("injected")
        async with super().write(lock, **how) as tx:
            yield tx
            if fault == "crash before":
                raise CrashError
        if self.freeze is not None:
            await self.freeze.pass_by()
        if fault == "crash after":
            raise CrashError


@dataclass
class Clock:
    """The time of the world, and how far one engine is off."""

    of_histories: ClassVar[Clock]  # of the history that is under way
    world: World
    skew: timedelta = timedelta()

    def __call__(self) -> datetime:
        """The time as this engine has it."""
        return self.world.now + self.skew

    def steady(self) -> float:
        """Tell the seconds of a clock that nobody sets, and that no engine has for itself."""
        return (self.world.now - NOW).total_seconds()


@dataclass
class Replica:
    """One engine: what it holds, and what earlier lives of it believe to hold."""

    parts: EngineContext
    database: Faulty
    clock: Clock
    worker: Worker
    catalog: list[Catalog]
    held: dict[str, Run] = field(default_factory=dict)
    ghosts: list[tuple[EngineContext, Run]] = field(default_factory=list)
    ceiling: Mode = Mode.AUTO


@dataclass
class World:
    """The store, its engines, the time, and everything that went wrong unexpectedly."""

    home: Path
    catalogs: Sequence[Sequence[dict[str, Any]]]
    freezes: Sequence[dict[str, Any]] = ()
    now: datetime = NOW
    replicas: list[Replica] = field(default_factory=list)
    surprises: list[BaseException] = field(default_factory=list)
    loaded: dict[int, Catalog] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=lambda: Metrics("test"))
    paused_until: dict[str, datetime] = field(default_factory=dict)  # by target; empty: all of them

    def told(self) -> str:
        """Tell where all that went wrong was raised."""
        return "".join("".join(traceback.format_exception(one)) for one in self.surprises)

    async def objection(self, key: str, run_id: str) -> str:
        """Say why the process that calls now must not touch a target."""
        parts = _acting.get()
        now = parts.clock()
        if parts.policy.ceiling is Mode.OBSERVE:
            return "its replica may only observe (19)"
        if any(held in {"", key} and now < until for held, until in self.paused_until.items()):
            return "paused (18)"
        async with self.replicas[0].database.read() as tx:
            lease = (await tx.execute(select(run.c.lease_owner, run.c.lease_until).where(run.c.id == run_id))).one()
        if lease.lease_owner != parts.owner or lease.lease_until < now:
            return f"{parts.owner} has no lease (21)"
        return ""

    def load(self, variant: int) -> Catalog:
        """One of the catalogs, as it is loaded now."""
        if variant not in self.loaded:
            file = self.home / f"catalog-{variant}.yaml"
            written = {"remediations": list(self.catalogs[variant]), "freezes": list(self.freezes)}
            file.write_text(yaml.safe_dump(written))
            self.loaded[variant] = load([file], self.now, actions=ACTIONS, checks=CHECKS)
        return replace(self.loaded[variant], loaded_at=self.now)

    def add(self, database: Faulty) -> None:
        """One more engine."""
        clock = Clock(self)
        catalog = [self.load(0)]
        parts = self._parts(database, clock, catalog, Mode.AUTO)
        self.replicas.append(Replica(parts, database, clock, Worker(parts), catalog))

    def _parts(
        self, database: Database, clock: Callable[[], datetime], catalog: list[Catalog], ceiling: Mode
    ) -> EngineContext:
        scope = Scope(redis={"databases": ("*",)})
        nowhere = RedisConnection(url=SecretSource.model_validate({"value": "redis://127.0.0.1:1"}))
        policy = Policy(scope=scope, lease=LEASE, storm=(), recheck=timedelta(seconds=30), ceiling=ceiling)
        policy = replace(policy, channel="people")
        clients = Clients(Connections(redis={"cache": nowhere}), scope)
        owner = f"replica-{next(_names)}"
        return EngineContext(database, lambda: catalog[0], clients, self.metrics, policy, clock, owner)

    def reborn(self, replica: Replica) -> None:
        """The process of a replica dies; what it held is believed in by its ghost, and by the store for a while."""
        replica.ghosts += [(replica.parts, held) for held in replica.held.values()]
        del replica.ghosts[:-3]
        replica.held.clear()
        replica.parts = self._parts(replica.database, replica.clock, replica.catalog, replica.ceiling)
        replica.worker = Worker(replica.parts)

    async def record(self, replica: Replica, alerts: Sequence[dict[str, Any]], body: bytes | None = None) -> None:
        """What the webhook does."""
        given = notification(*alerts) if body is None else body
        received = Received(self.now, "remediator", "key", len(alerts), 0, given)
        box = Inbox(replica.database)
        committer = asyncio.create_task(box.commit_forever())
        try:
            await box.record(received, 10)
        finally:
            committer.cancel()
            await asyncio.gather(committer, return_exceptions=True)

    async def guarded(self, replica: Replica, work: Any) -> Any:
        """Do something as a process would that may die of it or lose its store."""
        try:
            return await work
        except CrashError:
            self.reborn(replica)
        except StoreUnavailableError:
            replica.held.clear()
        except AppError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the machine reports it
            self.surprises.append(error)
        return None

    async def take_in(self, replica: Replica) -> None:
        """One batch."""
        await self.guarded(replica, intake.take_in(replica.parts))

    async def judge(self, replica: Replica) -> None:
        """What the loop beside the worker does."""
        await self.guarded(replica, effectiveness.judge(replica.parts))

    async def seal(self, replica: Replica) -> None:
        """What housekeeping does."""
        await self.guarded(replica, housekeeping.seal(replica.parts))

    async def claim(self, replica: Replica, limit: int = 1) -> int:
        """Lease what is due."""

        async def claimed() -> int:
            asked_at = replica.clock.steady()
            claimant = Claimant(replica.parts.owner, replica.clock() + LEASE, frozenset(replica.held))
            async with replica.database.write() as tx:
                found = await leases.claim(tx, claimant, replica.clock(), limit)
            replica.held |= {one.id: one for one in found.runs}
            replica.parts.tenures.update({one.id: Tenure(LEASE, asked_at) for one in found.runs})
            return len(found.runs)

        return await self.guarded(replica, claimed()) or 0

    async def renew(self, replica: Replica) -> None:
        """Keep what is held, and let go of what was lost."""

        async def renewed() -> None:
            asked_at = replica.clock.steady()
            async with replica.database.write() as tx:
                until = replica.clock() + LEASE
                kept = await leases.renew(tx, replica.parts.owner, list(replica.held), until)
            replica.held = {run_id: held for run_id, held in replica.held.items() if run_id in kept}
            for run_id in kept:
                replica.parts.tenures[run_id].prolong(asked_at)

        await self.guarded(replica, renewed())

    async def advance(self, replica: Replica, run_id: str) -> None:
        """Take one held run one stage further, as the worker does."""
        held = replica.held.pop(run_id)
        moved = await self.guarded(replica, self._stage(replica.parts, replica.worker, held))
        if moved is not None and moved.lease_owner is not None:
            replica.held[moved.id] = moved

    async def haunt(self, replica: Replica) -> None:
        """A process that was frozen goes on where it was, whoever works on its run by now."""
        parts, held = replica.ghosts.pop()
        await self.guarded(replica, self._stage(parts, Worker(parts), held))

    async def _stage(self, parts: EngineContext, worker: Worker, held: Run) -> Run | None:
        _acting.set(parts)
        try:
            return await advance(parts, held)
        except LeaseLostError:
            return None
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - as the worker does, and reported besides
            self.surprises.append(error)
            return await worker._fail(held, error)

    async def runs(self) -> list[Row[Any]]:
        """Read every run of the ledger, without its documents: this happens after every step."""
        async with self.replicas[0].database.read() as tx:
            return list(await tx.execute(select(*_PLAIN).order_by(run.c.id)))

    async def admissions(self) -> dict[str, dict[str, Any]]:
        """Read every run that was let through, with the remediation it was admitted with.

        They come in the order of their events, which is not the order of clocks that are off.
        """
        first = func.min(event.c.id)
        query = select(run.c.id, run.c.spec).join(event, event.c.run_id == run.c.id)
        query = (
            query.where(event.c.state == RunState.RUNNING, event.c.at == run.c.admitted_at)
            .group_by(run.c.id)
            .order_by(first)
        )
        async with self.replicas[0].database.read() as tx:
            return {row.id: former_names.specification(row.spec) for row in await tx.execute(query)}

    async def episodes(self) -> list[Row[Any]]:
        """Read every episode, in the order in which they were opened."""
        async with self.replicas[0].database.read() as tx:
            return list(await tx.execute(select(episode).order_by(episode.c.id)))

    async def story(self, run_ids: Sequence[str]) -> str:
        """Tell all that happened to some runs, in order."""
        query = select(event).where(event.c.run_id.in_(run_ids)).order_by(event.c.id)
        async with self.replicas[0].database.read() as tx:
            found = await tx.execute(query)
            return "\n".join(f"{row.at} {row.run_id[-6:]} {row.state} {row.reason} {row.message}" for row in found)

    async def states(self) -> dict[str, list[str]]:
        """The states that each run's events say, in order."""
        found: dict[str, list[str]] = {}
        async with self.replicas[0].database.read() as tx:
            for row in await tx.execute(select(event.c.run_id, event.c.state).order_by(event.c.id)):
                found.setdefault(row.run_id, []).append(row.state)
        return found

    async def waiting(self) -> int:
        """Notifications that nobody has taken in."""
        async with self.replicas[0].database.read() as tx:
            return int(await inbox.count_waiting(tx))
