"""What the database itself refuses, whatever the code above it believes."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from app.domain.errors import ConflictError
from app.domain.reasons import Reason
from app.domain.states import RunState, may_become
from app.store.audit.chain import Entry
from app.store.db.database import Database
from app.store.db.schema import run as run_table
from app.store.ledger import episodes, runs
from tests.support.aio import run
from tests.support.alerts import NOW
from tests.support.ledger import claim, count_events, fetch, new_episode, opened, seed, seed_claimed


async def _set(database: Database, run_id: str, **values: Any) -> None:
    async with database.write() as tx:
        await tx.execute(update(run_table).where(run_table.c.id == run_id).values(values))


def test_one_run_at_a_time_holds_a_target(store: str) -> None:
    """A second holder is an error of the database, not a race that someone lost."""

    async def scenario() -> None:
        async with opened(store) as database:
            one, other = await seed(database, 2)
            await _set(database, one.id, target_key="redis:cache/0", holds_target=True)
            with pytest.raises(IntegrityError):
                await _set(database, other.id, target_key="redis:cache/0", holds_target=True)
            await _set(database, one.id, holds_target=False)
            await _set(database, other.id, target_key="redis:cache/0", holds_target=True)

    run(scenario())


def test_one_episode_of_an_alert_is_open_at_a_time(store: str) -> None:
    """Two replicas that take in the same alert at once cannot both open it."""

    async def scenario() -> None:
        async with opened(store) as database:
            for _ in range(2):
                closed = new_episode()
                closed = type(closed)(**{**_fields(closed), "closed_at": NOW, "resolved_at": NOW})
                await _open(database, closed)
            await _open(database, new_episode())
            with pytest.raises(IntegrityError):
                await _open(database, new_episode())

    run(scenario())


def _fields(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


async def _open(database: Database, one: Any) -> None:
    async with database.write() as tx:
        await episodes.create(tx, [one])


def test_a_transition_outside_of_the_table_is_refused(store: str) -> None:
    """The run and its events stay as they were."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database)
            async with database.write() as tx:
                ended = await runs.move(tx, held, RunState.CANCELLED, NOW, Entry("over"))
            events = await count_events(database, held.id)
            for after in set(RunState) - {RunState.CANCELLED}:
                with pytest.raises(ConflictError):
                    async with database.write() as tx:
                        await runs.move(tx, ended, after, NOW, Entry("again"))
            assert RunState.CANCELLED is (await fetch(database, held.id)).state
            assert events == await count_events(database, held.id)

    run(scenario())


@pytest.mark.parametrize("after", [state for state in RunState if may_become(RunState.PENDING, state)])
def test_every_change_of_state_has_its_event(store: str, after: RunState) -> None:
    """State and audit are one transaction; a final state gives the target and the lease back."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database)
            before = await count_events(database, held.id)
            async with database.write() as tx:
                entry = Entry("because", Reason.VERIFIED)
                moved = await runs.move(tx, held, after, NOW, entry, holds_target=True, target_key="redis:cache/0")
            found = await fetch(database, held.id)
            assert before + 1 == await count_events(database, held.id)
            assert (after, Reason.VERIFIED, "because") == (found.state, found.reason, found.message)
            assert (moved.state, moved.updated_at) == (found.state, found.updated_at)
            assert (not after.is_final, not after.is_final) == (found.holds_target, found.lease_owner is not None)

    run(scenario())


def test_a_final_run_is_never_claimed(store: str) -> None:
    """It is not active any more."""

    async def scenario() -> None:
        async with opened(store) as database:
            held = await seed_claimed(database)
            async with database.write() as tx:
                await runs.move(tx, held, RunState.CANCELLED, NOW, Entry("over"))
            assert [] == await claim(database)

    run(scenario())


def test_labels_longer_than_an_index_can_hold_are_recorded(store: str) -> None:
    """A hostile alert must not make its own row impossible to write."""

    async def scenario() -> None:
        async with opened(store) as database:
            long = "".join(chr(0x10000 + number * 7919 % 0xF0000) for number in range(20_000))
            seeded = (await seed(database))[0]
            hostile = type(seeded)(
                **{**_fields(seeded), "id": "other", "labels": {"alertname": long, "namespace": long}}
            )
            async with database.write() as tx:
                await runs.create(tx, [hostile])
            assert long == (await fetch(database, "other")).labels["alertname"]

    run(scenario())
