"""Which replica works on a run: each run once, until its lease runs out, and then without the loser."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.domain.errors import LeaseLostError
from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.store.audit.chain import Entry
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.schema import run as run_table
from app.store.ledger import leases, runs, steps
from app.store.ledger.leases import Claimant
from app.store.ledger.runs import Run
from app.store.ledger.steps import StepOutcome
from tests.support.aio import run
from tests.support.alerts import NOW
from tests.support.ledger import LEASE, claim, count_events, fetch, opened, seed, seed_claimed, unleased

STEP = PlannedStep(action="http.request", summary="send")
SECOND = timedelta(seconds=1)
OVER = NOW + LEASE + SECOND


def test_every_run_is_claimed_exactly_once(store: str) -> None:
    """Eight workers of two replicas that claim at the same time share the runs."""

    async def scenario() -> None:
        async with opened(store) as one, opened(store) as other:
            seeded = await seed(one, 60)

            async def work(number: int) -> list[str]:
                got: list[str] = []
                database = (one, other)[number % 2]
                for _ in seeded:  # at the most: what is claimed twice must not go on for ever
                    got += [each.id for each in await claim(database, f"worker-{number}", limit=3, in_work=tuple(got))]
                return got

            shares = await asyncio.gather(*(work(number) for number in range(8)))
            assert sorted(each.id for each in seeded) == sorted(each for share in shares for each in share)

    run(scenario())


def test_a_lease_that_runs_out_is_taken_over(store: str) -> None:
    """Until then nobody else gets the run; afterwards it has a new owner and a new epoch."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database, "dead")
            assert [] == await claim(database, "me", now=NOW + LEASE - SECOND)
            async with database.write() as tx:
                claimed = await leases.claim(tx, Claimant("me", OVER + LEASE), OVER, 10)
            assert 1 == claimed.taken_over
            assert ("me", held.lease_epoch + 1) == (claimed.runs[0].lease_owner, claimed.runs[0].lease_epoch)

    run(scenario())


def test_those_that_hold_a_target_can_be_claimed_alone(store: str) -> None:
    """Whatever else is due."""

    async def scenario() -> None:
        async with opened(store) as database:
            _, acting, _ = await seed(database, 3)
            async with database.write() as tx:
                held = update(run_table).where(run_table.c.id == acting.id).values(holds_target=True, target_key="a")
                await tx.execute(held)
                claimed = await leases.claim(tx, Claimant("me", NOW + LEASE), NOW, 10, acting=True)
            assert [acting.id] == [one.id for one in claimed.runs]

    run(scenario())


def test_a_renewed_lease_is_not_taken_over(store: str) -> None:
    """Renewing moves the end, and tells which leases are gone."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database, "me")
            async with database.write() as tx:
                assert {held.id} == await leases.renew(tx, "me", [held.id, "gone"], OVER + LEASE)
            assert [] == await claim(database, "other", now=OVER)

    run(scenario())


def test_a_renewal_shortens_no_lease(store: str) -> None:
    """A replica whose clock is behind renews until an earlier time than the lease has already."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database, "me")
            for until in (OVER + LEASE, OVER - SECOND):
                async with database.write() as tx:
                    assert {held.id} == await leases.renew(tx, "me", [held.id], until)
            assert [] == await claim(database, "other", now=OVER)

    run(scenario())


def test_an_owner_gets_back_what_it_dropped(store: str) -> None:
    """A run that is leased to a process that does not work on it needs no expiry."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database, "me")
            assert [] == await claim(database, "me", in_work=(held.id,))
            assert [held.id] == [each.id for each in await claim(database, "me")]

    run(scenario())


def test_a_released_run_is_free_at_once(store: str) -> None:
    """All of an owner that stops, or all where no other process can be."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database, "me")
            async with database.write() as tx:
                await leases.release_owned(tx, "me")
            held = (await claim(database, "other"))[0]
            async with database.write() as tx:
                assert 1 == await leases.release_all(tx)
            assert [held.id] == [each.id for each in await claim(database, "me")]

    run(scenario())


def test_the_next_due_run_is_known(store: str) -> None:
    """When a free run is due, or when a lease of somebody else ends; one's own work does not count."""

    async def scenario() -> None:
        async with opened(store) as database:
            me = Claimant("me", NOW + LEASE)
            async with database.read() as tx:
                assert await leases.next_due(tx, me) is None
            await seed(database)
            async with database.read() as tx:
                assert NOW == await leases.next_due(tx, me)
            held = (await claim(database, "other"))[0]
            async with database.read() as tx:
                assert NOW + LEASE == await leases.next_due(tx, me)
                assert await leases.next_due(tx, Claimant("other", NOW + LEASE, {held.id})) is None

    run(scenario())


Write = Callable[[AsyncConnection, Run], Awaitable[object]]
WRITES: dict[str, Write] = {
    "move": lambda tx, held: runs.move(tx, held, RunState.RUNNING, NOW, Entry("late")),
    "postpone": lambda tx, held: runs.postpone(tx, held, NOW + LEASE),
    "check_lease": runs.check_lease,
    "start_step": lambda tx, held: steps.start(tx, held, 0, STEP, NOW),
    "finish_step": lambda tx, held: steps.finish(tx, held, 0, NOW, StepOutcome("succeeded")),
    "fold": lambda tx, held: runs.fold(tx, held, held, NOW),
}


@pytest.mark.parametrize("write", WRITES)
def test_who_lost_the_lease_changes_nothing(store: str, write: str) -> None:
    """A replica that wakes up after another one has taken over is told so, and its transaction is void."""

    async def scenario() -> None:
        async with opened(store) as database:
            loser = await seed_claimed(database, "loser")
            winner = (await claim(database, "winner", now=OVER))[0]
            events = await count_events(database, loser.id)
            with pytest.raises(LeaseLostError):
                await _write(database, loser, WRITES[write])
            assert winner == await fetch(database, loser.id)
            assert events == await count_events(database, loser.id)
            assert [] == await _steps(database, loser)

    run(scenario())


def test_even_the_same_owner_loses_its_earlier_lease(store: str) -> None:
    """The epoch counts, so that two tasks of one process cannot both write."""

    async def scenario() -> None:
        async with opened(store) as database:
            earlier = await seed_claimed(database, "me")
            await claim(database, "me")
            with pytest.raises(LeaseLostError):
                await _write(database, earlier, WRITES["move"])

    run(scenario())


def test_nobody_claims_what_it_is_working_on(store: str) -> None:
    """A process that was too slow to renew must not start the same run a second time beside itself."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database, "me")
            assert [] == await claim(database, "me", now=OVER, in_work=(held.id,))
            assert [held.id] == [each.id for each in await claim(database, "other", now=OVER)]

    run(scenario())


@pytest.mark.parametrize("how", ["move", "postpone"])
def test_a_run_that_is_put_off_is_given_back(store: str, how: str) -> None:
    """Whoever comes when its time has come may work on it, and nobody before."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database, "me")
            async with database.write() as tx:
                if how == "postpone":
                    parked = await runs.postpone(tx, held, OVER)
                else:
                    parked = await runs.move(tx, held, RunState.DEFERRED, NOW, Entry("later"), not_before=OVER)
            assert parked.lease_owner is None
            assert [] == await claim(database, "other", now=OVER - SECOND)
            assert [held.id] == [each.id for each in await claim(database, "other", now=OVER)]

    run(scenario())


def test_a_run_that_cannot_be_read_does_not_stop_the_others(store: str) -> None:
    """A row of another release is left to a replica that can read it; when none has in an hour, it ends as failed."""

    async def scenario() -> None:
        async with opened(store) as database:
            strange, fine = await seed(database, 2)
            async with database.write() as tx:
                here = run_table.c.id == strange.id
                await tx.execute(update(run_table).where(here).values(spec={"name": "from-the-future"}))
            async with database.write() as tx:
                claimed = await leases.claim(tx, Claimant("me", NOW + LEASE), NOW, 10)
            assert ([fine.id], (strange.id,)) == ([each.id for each in claimed.runs], claimed.left)
            columns = (run_table.c.state, run_table.c.reason, run_table.c.active, run_table.c.lease_owner)
            async with database.read() as tx:
                row = (await tx.execute(select(*columns).where(run_table.c.id == strange.id))).one()
            assert (RunState.PENDING, None, True, None) == tuple(row)
            later = NOW + timedelta(hours=1)
            async with database.write() as tx:
                claimed = await leases.claim(tx, Claimant("me", later + LEASE), later, 10)
                row = (await tx.execute(select(*columns).where(run_table.c.id == strange.id))).one()
            assert (strange.id,) == claimed.unreadable
            assert (RunState.FAILED, Reason.UNEXPECTED, False, None) == tuple(row)

    run(scenario())


def test_a_claim_changes_nothing_but_the_lease(store: str) -> None:
    """What a run is does not depend on who holds it."""

    async def scenario() -> None:
        async with opened(store) as database:
            seeded = (await seed(database))[0]
            assert unleased(seeded) == unleased((await claim(database))[0])

    run(scenario())


async def _write(database: Database, held: Run, write: Write) -> None:
    async with database.write() as tx:
        await write(tx, held)


async def _steps(database: Database, held: Run) -> list[object]:
    async with database.read() as tx:
        return list(await steps.of_rung(tx, held.id, 0))


def test_a_state_that_the_store_has_lost_is_not_gone_on_from(store: str) -> None:
    """An admission that was not on the disk when the database's server died: its replica still believes in it."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database)
            believed = replace(
                held, state=RunState.RUNNING, holds_target=True, admitted_at=NOW, target_key="redis:cache/0"
            )
            for write in ("start_step", "finish_step", "check_lease"):
                with pytest.raises(LeaseLostError):
                    await _write(database, believed, WRITES[write])
            assert held == await fetch(database, held.id)

    run(scenario())
