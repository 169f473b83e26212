"""The store's clock is set by an hour: everything lasts as long as it would have, at whichever replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from app.api import decisions
from app.domain.errors import ConflictError
from app.domain.obstacles import Hold, Storm
from app.domain.states import RunState
from app.engine.clock import Timekeeper
from app.store.audit.chain import Entry
from app.store.db import clock, schema
from app.store.gates import breakers, pauses, storms
from app.store.gates.breakers import Ended
from app.store.gates.pauses import Held
from app.store.ledger import leases, outbox
from app.store.ledger.approvals import DecisionKind, HumanDecision
from app.store.ledger.leases import Claimant
from app.store.ledger.outbox import Draft
from tests.support.aio import run
from tests.support.alerts import alert
from tests.support.clocks import SetClock
from tests.support.engine import Clock, Engine, engine, read, until
from tests.support.entries import asked, poke, request
from tests.support.web import WebServer

HOUR = timedelta(hours=1)
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR, timedelta(minutes=1), timedelta(minutes=-1)], ids=str)
MOMENT = timedelta(seconds=4)
# Times that a step does not move, and why not.
STAY = {
    "notification.taken_in_at": "only whether there is one counts",
    "episode.starts_at": "by Prometheus' clock",
    "episode.resolved_at": "by Alertmanager's clock",
    "run.alert_starts_at": "by Prometheus' clock",
    "run.resolved_at": "by Alertmanager's clock",
    "run.lease_until": "is made whole instead",
    "step.started_at": "a record",
    "step.finished_at": "a record",
    "event.at": "a record, under a hash",
    "seal.at": "a record, under a hash",
    "hold.ended_at": "only whether there is one counts",
    "clock.seen_at": "is set by a step",
    "message.sent_at": "a record",
    "message.given_up_at": "a record",
    "leadership.since": "by the database's own clock; see the lease's end",
    "leadership.renewed_at": "by the database's own clock; see the lease's end",
    "leadership.until": "a lease that was renewed in the future is none",
}


def test_every_time_of_the_schema_moves_or_is_decided_about() -> None:
    """A new column with a time has its place in `clock`, or its reason here."""
    moved = {
        f"{table}.{column.name}" for table, _, columns in clock.moved(datetime.now(UTC), HOUR) for column in columns
    }
    there = {
        f"{table}.{column.name}"
        for table in schema.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, schema.Timestamp)
    }
    assert there == moved | STAY.keys()
    assert not moved & STAY.keys()


class World:
    """A store whose clock can be set, and replicas that go by it."""

    def __init__(self, store: str, directory: Path, dial: SetClock | Clock) -> None:
        self._store = store
        self._directory = directory
        self.dial = dial

    def step(self, by: timedelta) -> None:
        """Set the store's clock."""
        if isinstance(self.dial, SetClock):
            self.dial.step(by)
        else:
            self.dial.ahead += by

    @asynccontextmanager
    async def replica(self, *entries: dict[str, Any], **given: Any) -> AsyncIterator[Engine]:
        """One that goes by the store's clock."""
        wall = self.dial if isinstance(self.dial, Clock) else Clock()
        async with engine(self._store, self._directory, *entries, clock=wall, timed=True, **given) as one:
            yield one


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """On SQLite the host's clock is set, on PostgreSQL the database's."""
    if request.param == "sqlite":
        return World(f"sqlite:///{tmp_path / 'store.db'}", tmp_path, Clock())
    dial = SetClock(request.getfixturevalue("postgres_database"))
    return World(dial.url, tmp_path, dial)


@pytest.fixture
def shared(postgres_database: str, tmp_path: Path) -> World:
    """Two replicas can be on this."""
    dial = SetClock(postgres_database)
    return World(dial.url, tmp_path, dial)


async def compare(one: Engine) -> None:
    """What the loop beside the engine does every five seconds."""
    assert one.parts.timekeeper
    await one.parts.timekeeper.compare()


async def written(one: Engine, table: Any) -> Any:
    """The only row of a table."""
    async with one.database.read() as tx:
        return (await tx.execute(select(table))).one()


@STEPS
def test_a_question_stands_as_long_as_it_says(world: World, sink: WebServer, step: timedelta) -> None:
    """Two seconds old it does not expire when the clock jumps ahead; when that goes back it stands no hour."""

    async def scenario() -> None:
        entry = poke(sink, mode="approve")
        async with world.replica(entry, approval_timeout=timedelta(seconds=40)) as one:
            await one.fire()
            (before,) = await one.reached(RunState.AWAITING_APPROVAL, count=1)
            asked_for = one.parts.clock() - before.updated_at
            world.step(step)
            await compare(one)
            one.parts.work.set()
            await asyncio.sleep(0.3)  # in which it would expire
            (after,) = await one.runs()
            assert RunState.AWAITING_APPROVAL == after.state
            assert abs(one.parts.clock() - after.updated_at - asked_for) < MOMENT
            assert after.not_before - one.parts.clock() <= timedelta(seconds=40)

    run(scenario())


@STEPS
def test_a_replica_that_has_not_heard_of_the_step_decides_nothing_by_its_old_clock(
    shared: World, sink: WebServer, step: timedelta
) -> None:
    """The other one has moved the question; by the old clock it would be over, or not begun."""

    async def scenario() -> None:
        entry = poke(sink, mode="approve")
        given = {"approval_timeout": timedelta(seconds=40)}
        async with (
            shared.replica(entry, working=False, **given) as one,
            shared.replica(entry, owner="replica-2", **given) as other,
        ):
            await one.fire()
            await other.reached(RunState.AWAITING_APPROVAL, count=1)
            shared.step(step)
            await compare(one)
            async with one.parts.turn() as turn:  # somebody looks at it now
                await turn.tx.execute(update(schema.run).values(not_before=turn.now - HOUR * 2))
            other.parts.work.set()

            async def put_off() -> bool:
                (row,) = await one.runs()
                return bool(row.state != RunState.AWAITING_APPROVAL or row.not_before > one.parts.clock())

            await until(put_off, 10, "the other to look at it")
            (row,) = await one.runs()
            assert RunState.AWAITING_APPROVAL == row.state
            assert abs(other.parts.clock() - one.parts.clock()) < MOMENT

    run(scenario())


@STEPS
@pytest.mark.parametrize("verb", ["approve", "retry", "undo"])
def test_what_a_person_says_to_a_replica_that_has_not_heard_of_the_step_is_done_at_once(
    shared: World, sink: WebServer, verb: str, step: timedelta
) -> None:
    """By the old clock it would wait for an hour."""

    async def scenario() -> None:
        entry = poke(sink, mode="approve" if verb == "approve" else "auto", steps=[request(sink)])
        async with (
            shared.replica(entry) as one,
            shared.replica(entry, owner="replica-2", working=False) as other,
        ):
            before = RunState.AWAITING_APPROVAL if verb == "approve" else RunState.SUCCEEDED
            await one.fire()
            ((row),) = await one.reached(before, count=1)
            shared.step(step)
            await compare(one)
            services: Any = SimpleNamespace(parts=other.parts, database=other.database, clock=other.parts.clock)
            services.catalog = SimpleNamespace(current=other.parts.catalog())
            said = Entry("asked for")
            if verb == "approve":
                await decisions._said(services, row.id, HumanDecision(DecisionKind.APPROVE, "ann"))
            elif verb == "retry":
                await decisions._retry(services, row.id, said)
            else:
                with pytest.raises(ConflictError):  # a request has no way back; what is asked is by the right clock
                    await decisions._undo(services, row.id, said)
            for changed in await one.runs():
                assert abs(changed.not_before - one.parts.clock()) < MOMENT or changed.state.is_final
            assert abs(other.parts.clock() - one.parts.clock()) < MOMENT

    run(scenario())


@STEPS
def test_nobody_takes_over_what_another_one_works_on(shared: World, sink: WebServer, step: timedelta) -> None:
    """Neither who has heard of the step, nor who claims or renews by the old clock."""

    async def scenario() -> None:
        entry = poke(sink, steps=[request(sink, method="POST")])
        async with shared.replica(entry) as one, shared.replica(entry, owner="replica-2") as other:
            sink.answering.clear()
            try:
                await one.deliver(one.firing(), one.firing(pod="b"))
                await until(lambda: awaitable(asked(sink)), 10, "the calls")
                for first, second in ((one, other), (other, one)):
                    shared.step(step)
                    await compare(first)
                    for _ in range(3):
                        await first.fire(pod=f"{first.parts.owner}-{_}")
                        await second.fire(pod=f"{second.parts.owner}-{_}")
                        first.parts.work.set()
                        second.parts.work.set()
                        await asyncio.sleep(0.1)
                    await compare(second)
            finally:
                sink.answering.set()
            rows = await one.ended(seconds=20)
            assert {RunState.SUCCEEDED} == {row.state for row in rows}
            assert len(rows) == asked(sink)
            assert 0 == sum(replica.parts.metrics.lease_takeovers._value.get() for replica in (one, other))

    run(scenario())


async def awaitable(value: int) -> int:
    """For `until`."""
    return value


@STEPS
def test_a_lease_ends_when_it_would_have(world: World, sink: WebServer, step: timedelta) -> None:
    """A dead owner's run waits for no hour."""

    async def scenario() -> None:
        async with world.replica(poke(sink), working=False) as one:
            await one.fire()
            async with one.database.write() as tx:
                now = one.parts.clock()
                lease = one.parts.policy.lease
                assert (await leases.claim(tx, Claimant("dead", now + lease), now, 1)).runs
            world.step(step)
            await compare(one)
            row = await written(one, schema.run)
            assert abs(row.lease_until - one.parts.clock() - lease) < MOMENT

    run(scenario())


@STEPS
@pytest.mark.parametrize("is_length", [True, False])
def test_a_pause_lasts(world: World, step: timedelta, is_length: bool) -> None:
    """One for a while as long as that; one until a time of the day never ends early."""

    async def scenario() -> None:
        async with world.replica(working=False) as one:
            async with one.database.write() as tx:
                now = one.parts.clock()
                hold = Hold("all", "ann", "why", now + timedelta(minutes=30))
                await pauses.put(tx, Held("all"), hold, now, is_length=is_length)
            world.step(step)
            await compare(one)
            left = (await written(one, schema.hold)).until - one.parts.clock()
            back = step if step < timedelta() and not is_length else timedelta()
            assert abs(left - timedelta(minutes=30) + back) < MOMENT

    run(scenario())


@STEPS
def test_what_has_stopped_stays_stopped_for_as_long(world: World, step: timedelta) -> None:
    """A breaker until its trial, a storm until it has been quiet, a message until its next try."""

    async def scenario() -> None:
        async with world.replica(working=False) as one:
            limits = read().limits
            async with one.database.write() as tx:
                now = one.parts.clock()
                for number in range(limits.breaker):
                    await breakers.record(tx, Ended("poke", f"run-{number}", helped=False), limits, now)
                await storms.keep(tx, Storm("", "many", now + HOUR / 2), now)
                await outbox.queue(tx, Draft("key", "channel", "title", "body"), now)
                await tx.execute(update(schema.message).values(not_before=now + HOUR / 2))
                await tx.execute(
                    insert(schema.standing).values(
                        remediation="poke", digest="d", mode="observe", since=now, good=0, bad=0
                    )
                )
            world.step(step)
            await compare(one)
            now = one.parts.clock()
            assert abs((await written(one, schema.breaker)).trial_at - now - limits.breaker_pause) < MOMENT
            assert abs((await written(one, schema.storm)).until - now - HOUR / 2) < MOMENT
            assert abs((await written(one, schema.message)).not_before - now - HOUR / 2) < MOMENT
            assert abs((await written(one, schema.message)).created_at - now) < MOMENT
            assert abs((await written(one, schema.standing)).since - now) < MOMENT

    run(scenario())


@STEPS
def test_a_cooldown_and_a_rate_hold(world: World, sink: WebServer, step: timedelta) -> None:
    """What was done a moment ago was done a moment ago."""

    async def scenario() -> None:
        async with world.replica(poke(sink, limits={"cooldown": "10m", "rate": "100/1h"})) as one:
            await one.fire()
            await one.ended(count=1)
            await one.resolve()
            world.step(step)
            await compare(one)
            began = max(one.parts.clock(), datetime.now(UTC))  # Prometheus' clock was not set back
            await one.deliver(alert(starts_at=began))
            rows = await one.reached(RunState.SUCCEEDED, RunState.DEFERRED, count=2)
            (second,) = [row for row in rows if row.state == RunState.DEFERRED]
            assert second.not_before - one.parts.clock() <= timedelta(minutes=10)
            assert 1 == asked(sink)

    run(scenario())


def test_both_replicas_see_a_step_and_it_is_followed_once(shared: World) -> None:
    """Whoever comes later finds it done; two steps after each other are two, in whichever order they are seen."""

    async def scenario() -> None:
        async with shared.replica(working=False) as one, shared.replica(working=False, owner="replica-2") as other:
            async with one.database.write() as tx:
                now = one.parts.clock()
                hold = Hold("all", "ann", "why", now + HOUR / 2)
                await pauses.put(tx, Held("all"), hold, now, is_length=True)
            for steps in ((HOUR,), (HOUR, HOUR), (-HOUR,), (HOUR, -2 * HOUR), (-HOUR, HOUR)):
                for step, (first, second) in zip(steps, ((one, other), (other, one)), strict=False):
                    shared.step(step)
                    await compare(first)
                    if len(steps) == 1:
                        await compare(second)
                await asyncio.gather(compare(one), compare(other))
                await compare(one)
                for replica in (one, other):
                    left = (await written(one, schema.hold)).until - replica.parts.clock()
                    assert abs(left - HOUR / 2) < MOMENT

    run(scenario())


def test_a_machine_that_was_suspended_moves_nothing(shared: World) -> None:
    """Its steady clock stood still, which looks like a step; the others have lived, though nothing was to be done."""

    async def scenario() -> None:
        async with shared.replica(working=False) as one, shared.replica(working=False, owner="replica-2") as other:
            async with one.database.write() as tx:
                now = one.parts.clock()
                await pauses.put(tx, Held("all"), Hold("all", "ann", "why", now + HOUR), now, is_length=True)
            before = await written(one, schema.hold)
            await compare(other)
            assert isinstance(one.parts.timekeeper, Timekeeper)
            one.parts.timekeeper._read -= HOUR / 2
            await compare(one)
            assert before == await written(one, schema.hold)
            assert abs(one.parts.clock() - other.parts.clock()) < MOMENT

    run(scenario())


@pytest.mark.parametrize("idle", [True, False])
def test_a_clock_that_was_set_back_while_nobody_ran(shared: World, sink: WebServer, idle: bool) -> None:
    """The start finds it, once, by what is written in the future."""

    async def scenario() -> None:
        async with shared.replica(poke(sink, mode="approve")) as one:
            async with one.database.write() as tx:
                now = one.parts.clock()
                await pauses.put(tx, Held("all"), Hold("all", "ann", "why", now + HOUR / 2), now, is_length=True)
            if not idle:
                await one.fire()
                await one.reached(RunState.DEFERRED, count=1)
            await compare(one)
        shared.step(-HOUR)
        for _ in range(3):
            async with shared.replica(poke(sink, mode="approve"), working=False) as one:
                left = (await written(one, schema.hold)).until - one.parts.clock()
                assert abs(left - HOUR / 2) < 3 * MOMENT

    run(scenario())


def test_a_step_whose_commit_fails_is_followed_later(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is the one before it until then."""

    async def scenario() -> None:
        async with shared.replica(working=False) as one:
            async with one.database.write() as tx:
                now = one.parts.clock()
                await pauses.put(tx, Held("all"), Hold("all", "ann", "why", now + HOUR / 2), now, is_length=True)
            shared.step(HOUR)
            follow = clock.follow_step

            async def fails(*given: Any) -> None:
                await follow(*given)
                raise OSError("gone")

            with monkeypatch.context() as patched:
                patched.setattr(clock, "follow_step", fails)
                with pytest.raises(Exception, match="gone"):
                    await compare(one)
            await compare(one)
            left = (await written(one, schema.hold)).until - one.parts.clock()
            assert abs(left - HOUR / 2) < MOMENT

    run(scenario())
