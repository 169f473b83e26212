"""What is old is deleted, in small batches, and the audit still verifies; what is needed stays."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.domain.states import RunState
from app.engine.background import housekeeping
from app.store.audit import chain
from app.store.audit.chain import Entry, Event
from app.store.audit.verify import verify
from app.store.db.connection import AsyncConnection
from app.store.db.schema import episode, event, message, notification, run, seal
from app.store.ledger import retention
from tests.support.aio import run as run_loop
from tests.support.engine import Engine, engine, sqlite
from tests.support.entries import asked, poke
from tests.support.web import WebServer

DAYS = timedelta(days=1)


async def counted(one: Engine) -> dict[str, int]:
    """How many rows each table has."""
    async with one.database.read() as tx:
        return {
            table.name: int((await tx.execute(select(func.count()).select_from(table))).scalar_one())
            for table in (run, event, episode, notification, message, seal)
        }


def test_old_records_are_deleted_and_the_audit_stays_intact(tmp_path: Path, sink: WebServer) -> None:
    """Ended runs with what belongs to them go; what fires or waits stays, however old."""

    async def scenario() -> None:
        limits = {"cooldown": "0s", "rate": "1000/1h", "storm": "1000/1h"}
        entries = [poke(sink, limits=limits), poke(sink, name="asks", matchers=['alertname="Asks"'], mode="approve")]
        rules: dict[str, Any] = {"approval_timeout": 1000 * DAYS, "concurrency": 100}
        async with engine(sqlite(tmp_path), tmp_path, *entries, **rules) as one:
            fired = [one.firing(pod=f"pod-{number}") for number in range(60)]
            await one.record(*fired)
            await one.deliver(one.firing(alertname="Asks"))
            await one.reached(RunState.SUCCEEDED, RunState.AWAITING_APPROVAL, count=61, seconds=60)
            for number in range(59):
                await one.resolve(pod=f"pod-{number}")
            assert 60 == asked(sink)
            await housekeeping.seal(one.parts)
            one.clock.ahead += 100 * DAYS
            await housekeeping.prune(one.parts, one.clock() - 90 * DAYS)
            await housekeeping.seal(one.parts)
            left = await counted(one)
            # The run that waits; the episodes that still fire, of which one run is gone: it triggers no second time.
            assert (1, 2, 0) == (left["run"], left["episode"], left["notification"])
            report = await verify(one.database)
            assert ([], True) == (report.findings, report.pruned_before is not None)
            await one.deliver(fired[59])
            assert (1, 60) == ((await counted(one))["run"], asked(sink))

    run_loop(scenario())


def test_nothing_is_said_about_deleting_nothing(tmp_path: Path, sink: WebServer) -> None:
    """A pass without anything old leaves no trace."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            await one.fire()
            await one.ended(count=1)
            before = await counted(one)
            assert 0 == await housekeeping.prune(one.parts, one.clock() - DAYS)
            assert before == await counted(one)

    run_loop(scenario())


def test_deleting_leaves_the_disk_to_the_others(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each batch for several times as long as that took."""
    spans = list[tuple[float, float]]()

    async def batch(*_given: object) -> int:
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(0.05)  # a slow disk
        spans.append((begun, asyncio.get_running_loop().time()))
        return int(len(spans) < 4)

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            assert 3 == await housekeeping.prune(one.parts, one.clock() - DAYS)

    monkeypatch.setattr(retention, "BATCHES", (batch,))
    run_loop(scenario())
    assert 4 == len(spans)
    for (begun, ended), (after, _) in pairwise(spans):
        assert after - ended > 3 * (ended - begun)


def test_the_audit_is_sealed_while_much_is_deleted(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass may take many minutes, and what happens meanwhile is sealed before its end."""
    unsealed = list[int]()

    async def batch(tx: AsyncConnection, *_given: object) -> int:
        await chain.append(tx, [Event("somebody", datetime.now(UTC), "reloaded", "", Entry("while it deletes"))])
        sealed = select(func.coalesce(func.max(seal.c.to_id), 0)).scalar_subquery()
        query = select(func.count()).select_from(event).where(event.c.id > sealed)
        unsealed.append((await tx.execute(query)).scalar_one())
        return int(len(unsealed) < 4)

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            await housekeeping.prune(one.parts, one.clock() - DAYS)

    monkeypatch.setattr(retention, "BATCHES", (batch,))
    monkeypatch.setattr(housekeeping, "_SEAL_SECONDS", 0.0)
    run_loop(scenario())
    assert [1, 1, 1, 1] == unsealed
