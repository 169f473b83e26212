"""The audit's chains and seals: whatever is changed afterwards is found, and what retention deletes is not missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Table, case, delete, select, text, update

from app.domain.reasons import Reason
from app.domain.states import RunState
from app.store.audit import chain, seals, stream
from app.store.audit import verify as verifying
from app.store.audit.chain import SERVICE, Entry, Event, Head, catalog_chain
from app.store.audit.seals import Cursor
from app.store.audit.stream import Wanted
from app.store.audit.verify import Report, verify
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.schema import event, run, seal
from app.store.ledger import retention, runs
from tests.support.aio import run as run_loop
from tests.support.alerts import NOW
from tests.support.ledger import opened, seed

DAY = timedelta(days=1)
Change = Callable[[AsyncConnection, str], Any]


async def history(database: Database, *, sealed: bool = True) -> str:
    """Two runs with some events each, and a chain that is no run's; the id of the first run."""
    first, _ = await seed(database, 2)
    async with database.write() as tx:
        for number in range(3):
            data = {"n": number, "big": 1e22, "half": 0.5, "nested": [{"a": None, "ä": "\u202e"}]}
            await runs.note(tx, first, NOW, "check", Entry("seen", Reason.CHECK_FAILED, data=data))
        await chain.append(tx, [Event(catalog_chain("poke"), NOW, "paused", "", Entry("paused", actor="ann"))])
    if sealed:
        async with database.write() as tx:
            await seals.seal_next(tx, NOW, 100)
    return first.id


def changed(store: str, change: Change, **options: Any) -> Report:
    """What verifying finds after somebody has changed the store behind the service's back."""

    async def scenario() -> Report:
        async with opened(store) as database:
            first = await history(database, **options)
            async with database.write() as tx:
                await change(tx, first)
            return await verify(database)

    return run_loop(scenario())


async def nothing(_tx: AsyncConnection, _first: str) -> None:
    """No change."""


def test_where_a_seal_or_a_stream_goes_on_is_found_by_the_index(store: str) -> None:
    """And not by reading everything before it, each ten seconds and for each page."""

    async def plan() -> str:
        async with opened(store) as database, database.write() as tx:
            query = select(event.c.id).where(seals.after(tx, Cursor(0, 5))).order_by(event.c.tx, event.c.id)
            words = "EXPLAIN QUERY PLAN"
            if not database.is_sqlite:
                words = "EXPLAIN"
                for other in ("seqscan", "bitmapscan"):  # which are quicker in a table that is empty
                    await tx.execute(text(f"SET LOCAL enable_{other} = off"))
            asked = query.compile(dialect=tx.dialect, compile_kwargs={"literal_binds": True})
            return str((await tx.execute(text(f"{words} {asked}"))).all())

    found = run_loop(plan())
    assert ("(tx=? AND id>?)" if store.startswith("sqlite") else "Index Cond: (ROW(tx, id) > ROW(") in found


def test_what_was_recorded_is_intact(store: str) -> None:
    """Every event counted, in chains that seals cover."""
    report = changed(store, nothing)
    assert (True, [], 6, 3, 1, 0, 0) == (
        report.is_intact,
        report.findings,
        report.events,
        report.chains,
        report.seals,
        report.unsealed,
        report.unhashed,
    )


@pytest.mark.parametrize(
    "values",
    [
        {"at": NOW + timedelta(microseconds=1)},
        {"kind": "resolved"},
        {"reason": None},
        {"message": "seen."},
        {"actor": "eve"},
        {"data": {"n": 9}},
        {"hash": "0" * 64},
        {"seq": 77},
        {"run_id": "01000000-0000-7000-8000-000000000000"},
    ],
)
def test_a_change_of_any_column_is_found(store: str, values: dict[str, Any]) -> None:
    """With the chain, where that can be known."""

    async def change(tx: AsyncConnection, first: str) -> None:
        await tx.execute(update(event).where(event.c.run_id == first, event.c.seq == 3).values(values))

    report = changed(store, change)
    assert not report.is_intact
    assert any(finding.seq in {2, 3, 4, 77, 1} for finding in report.findings)


@pytest.mark.parametrize("seq", [1, 2, 3, 4])
def test_a_missing_event_is_found(store: str, seq: int) -> None:
    """The first, one between, and the last, which only the seal knows."""

    async def change(tx: AsyncConnection, first: str) -> None:
        await tx.execute(delete(event).where(event.c.run_id == first, event.c.seq == seq))

    assert not changed(store, change).is_intact


def test_a_chain_that_is_taken_out_is_found(store: str) -> None:
    """With its run, as if it had never been."""

    async def change(tx: AsyncConnection, first: str) -> None:
        await tx.execute(delete(event).where(event.c.run_id == first))
        await tx.execute(delete(run).where(run.c.id == first))

    report = changed(store, change)
    assert ["is gone, and seal 1 had it"] == [finding.message for finding in report.findings]


def test_a_run_that_says_other_than_its_events_is_found(store: str) -> None:
    """A state that no event brought about."""

    async def change(tx: AsyncConnection, first: str) -> None:
        await tx.execute(update(run).where(run.c.id == first).values(state=RunState.SUCCEEDED))

    report = changed(store, change)
    assert ["its run is succeeded, and its last event says pending"] == [found.message for found in report.findings]


def test_a_run_without_events_and_events_without_a_run_are_found(store: str) -> None:
    """Neither can be."""

    async def no_events(tx: AsyncConnection, first: str) -> None:
        await tx.execute(delete(event).where(event.c.run_id == first))

    async def no_run(tx: AsyncConnection, first: str) -> None:
        await tx.execute(delete(run).where(run.c.id == first))

    assert not changed(store, no_events, sealed=False).is_intact


def test_a_seal_that_is_changed_or_gone_is_found(store: str) -> None:
    """Also when the chains it covered are as they were."""

    async def scenario() -> None:
        async with opened(store) as database:
            first = await history(database)
            async with database.write() as tx:
                held = await runs.get(tx, first)
                assert held is not None
                await runs.note(tx, held, NOW, "check", Entry("later"))
            async with database.write() as tx:
                await seals.seal_next(tx, NOW + DAY, 100)
            assert (await verify(database)).is_intact
            async with database.write() as tx:
                await tx.execute(delete(seal).where(seal.c.id == 1))
            assert not (await verify(database)).is_intact

    run_loop(scenario())


def test_a_rewritten_chain_is_found_when_there_is_a_key(store: str) -> None:
    """Who can write to the database can make every hash but one with the key."""

    async def scenario() -> None:
        async with opened(store, audit_key=b"secret") as database:
            first = await history(database, sealed=False)
            assert (await verify(database)).is_intact
            async with database.write() as tx:
                rows = (await tx.execute(select(event).where(event.c.run_id == first).order_by(event.c.seq))).all()
                end = Head()
                for row in rows:
                    content = chain.content_of(row) | {"actor": "eve"}
                    end = Head(row.seq, chain.link(b"", end, content))
                    await tx.execute(update(event).where(event.c.id == row.id).values(actor="eve", hash=end.hash))
            report = await verify(database)
            assert [first] == [finding.chain for finding in report.findings]

    run_loop(scenario())


def test_a_seal_of_the_log_shows_that_everything_was_made_anew(store: str) -> None:
    """Without the key, as if all of it were older: in itself that fits."""

    async def hashes(database: Database) -> list[str]:
        async with database.read() as tx:
            return list((await tx.execute(select(seal.c.hash))).scalars())

    async def scenario() -> None:
        async with opened(store, audit_key=b"secret") as database:
            await history(database)
            logged = await hashes(database)
            assert (await verify(database, logged)).is_intact
        async with opened(store) as database:
            async with database.write() as tx:
                await tx.execute(delete(seal))
                rows = (await tx.execute(select(event).order_by(event.c.run_id, event.c.seq))).all()
                end = Head()
                for row in rows:
                    end = Head(row.seq, chain.link(b"", end if row.seq > 1 else Head(), chain.content_of(row)))
                    await tx.execute(update(event).where(event.c.id == row.id).values(hash=end.hash))
            async with database.write() as tx:
                await seals.seal_next(tx, NOW, 100)
            forged = await hashes(database)
        async with opened(store, audit_key=b"secret") as database:
            report = await verify(database, forged)
            assert (True, 6) == (report.is_intact, report.unkeyed)
            (finding,) = (await verify(database, [*forged, *logged])).findings
            assert logged[0] in finding.message

    run_loop(scenario())


def test_a_key_that_comes_later_leaves_what_was_before(store: str) -> None:
    """Counted, and not taken for a change."""

    async def scenario() -> None:
        async with opened(store) as database:
            first = await history(database)
        async with opened(store, audit_key=b"secret") as database:
            async with database.write() as tx:
                held = await runs.get(tx, first)
                assert held is not None
                await runs.note(tx, held, NOW, "check", Entry("with the key"))
            async with database.write() as tx:
                await seals.seal_next(tx, NOW + DAY, 100)
            report = await verify(database)
            assert (True, 6) == (report.is_intact, report.unkeyed)

    run_loop(scenario())


def test_events_of_a_release_without_hashes_are_counted(store: str) -> None:
    """As long as such a release may have run; a day after the first seal nobody writes them any more."""

    async def scenario() -> None:
        async with opened(store) as database:
            first = await history(database)
            row = {"run_id": first, "at": NOW, "kind": "check", "state": "pending"}
            row |= {"message": "", "actor": "x", "data": {}}
            async with database.write() as tx:
                await tx.execute(event.insert(), [row])
            report = await verify(database)
            assert (True, 1) == (report.is_intact, report.unhashed)
            async with database.write() as tx:
                await seals.seal_next(tx, NOW + 2 * DAY, 100)
                await tx.execute(event.insert(), [row])
            assert ["has no hash" in found.message for found in (await verify(database)).findings] == [True]

    run_loop(scenario())


def test_what_retention_deletes_is_not_missed(store: str) -> None:
    """Runs that ended before, with all that belongs to them; others stay."""

    async def scenario() -> None:
        async with opened(store) as database:
            first = await history(database)
            before = NOW + DAY
            async with database.write() as tx:
                held = await runs.get(tx, first)
                assert held is not None
                await tx.execute(
                    update(run).where(run.c.id == first).values(state=RunState.DENIED, finished_at=NOW, active=False)
                )
                await chain.append(tx, [Event(first, NOW, "denied", RunState.DENIED, Entry("no"))])
                await seals.seal_next(tx, NOW, 100)
                assert await retention.announce_pass(tx, NOW + 2 * DAY, before)
                assert 1 == await retention.prune_runs(tx, before, 10)
                assert 0 == await retention.prune_runs(tx, before, 10)
                await retention.prune_others(tx, before, 10)
                left = list((await tx.execute(select(event.c.run_id).distinct())).scalars())
                assert {SERVICE, catalog_chain("poke")} < set(left)
                assert first not in left
            report = await verify(database)
            assert (True, before) == (report.is_intact, report.pruned_before)

    run_loop(scenario())


@pytest.mark.parametrize("moment", ["_check_row", "_check_seals"])
def test_what_retention_deletes_while_it_is_verified_is_not_missed(
    store: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both begin with what is oldest; a run that somebody takes out, and not its events, is missed all the same."""
    check = getattr(verifying, moment)
    waiting = list[Callable[[], Awaitable[None]]]()

    async def late(*given: Any) -> None:
        if waiting:
            await waiting.pop()()
        await check(*given)

    async def scenario() -> None:
        async with opened(store) as database:
            first = await history(database)

            async def prune() -> None:
                async with database.write() as tx:
                    ended = {"state": RunState.DENIED, "finished_at": NOW, "active": False}
                    await tx.execute(update(run).where(run.c.id == first).values(ended))
                    assert await retention.announce_pass(tx, NOW + 2 * DAY, NOW + DAY)
                    assert 1 == await retention.prune_runs(tx, NOW + DAY, 10)

            waiting.append(prune)
            assert [] == (await verify(database)).findings
            async with database.write() as tx:
                await tx.execute(delete(run))
            assert ["its run is missing from the ledger"] == [one.message for one in (await verify(database)).findings]

    monkeypatch.setattr(verifying, moment, late)
    run_loop(scenario())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_a_hash_is_of_what_is_said_and_not_of_how_it_is_written(value: object) -> None:
    """Whole numbers stay the same when a database writes them without a point."""
    assert chain.digest(b"", {"b": 1.0, "a": value}) == chain.digest(b"", {"a": value, "b": 1})
    assert chain.digest(b"k", value) != chain.digest(b"", value)


def test_the_stream_goes_on_where_it_was(store: str) -> None:
    """In order, each once, filtered by what it is about."""

    async def scenario() -> None:
        async with opened(store) as database:
            first = await history(database)
            everything = [row async for row in stream.read(database, Cursor(), Wanted())]
            assert 6 == len(everything)
            third = everything[2]
            rest = [row.id async for row in stream.read(database, Cursor(third.tx, third.id), Wanted())]
            assert [row.id for row in everything[3:]] == rest
            about = stream.described(everything[0])
            assert (first, "poke") == (about["chain"], about["run"]["remediation"])
            wanted = Wanted(remediation="poke", kinds=("paused",))
            of_poke = [row async for row in stream.read(database, Cursor(), wanted)]
            assert [catalog_chain("poke")] == [row.run_id for row in of_poke]
            assert str(Cursor.parse(about["cursor"])) == about["cursor"]

    run_loop(scenario())


async def append(database: Database) -> None:
    """One more event."""
    async with database.write() as tx:
        await chain.append(tx, [Event(catalog_chain("other"), NOW, "paused", "", Entry("paused", actor="ann"))])


@pytest.mark.parametrize("sealed", [True, False])
def test_what_another_server_did_not_seal_is_sealed_after_a_restore(postgres_database: str, *, sealed: bool) -> None:
    """Each once, also where ids were committed in another order; the numbers of its transactions mean nothing here."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            await history(database, sealed=False)
            everything = {row.id async for row in stream.read(database, Cursor(), Wanted())}
            order = case(
                (event.c.id % 2 == 0, 20 - event.c.id), else_=20
            )  # the last of the first half has the lowest id
            async with database.write() as tx:
                await tx.execute(update(event).values(tx=order))
            early = {number for number in everything if number % 2 == 0} if sealed else set()
            if sealed:
                async with database.write() as tx:
                    assert len(early) == (await seals.seal_next(tx, NOW, len(early))).events
            async with database.write() as tx:
                await tx.execute(update(event).values(tx=event.c.tx + (1 << 40)))
                await tx.execute(update(seal).values(to_tx=seal.c.to_tx + (1 << 40)))
            async with database.write(lock="seal") as tx:
                await seals.after_restore(tx)
            await append(database)
            rows = [row async for row in stream.read(database, Cursor(), Wanted())]
            assert [*sorted(everything), rows[-1].id] == sorted(row.id for row in rows)
            async with database.write(lock="seal") as tx:  # the next start
                await seals.after_restore(tx)
                kept = select(event.c.tx).where(event.c.id == rows[-1].id)
                assert rows[-1].tx == (await tx.execute(kept)).scalar_one()
            async with database.write() as tx:
                assert len(everything - early) + 1 == (await seals.seal_next(tx, NOW, 100)).events
            report = await verify(database)
            assert (True, 0, len(everything) + 1) == (report.is_intact, report.unsealed, report.events)

    run_loop(scenario())


@pytest.mark.parametrize("empty", [event, seal])
def test_a_restore_without_events_or_without_seals(postgres_database: str, empty: Table) -> None:
    """What is left of the two tells of the other server."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            await history(database)
            async with database.write() as tx:
                await tx.execute(update(event).values(tx=1 << 40))
                await tx.execute(update(seal).values(to_tx=1 << 40))
                await tx.execute(delete(empty))
            async with database.write(lock="seal") as tx:
                await seals.after_restore(tx)
            await append(database)
            async with database.write() as tx:
                assert (1 if empty is event else 7) == (await seals.seal_next(tx, NOW, 100)).events

    run_loop(scenario())


@pytest.mark.parametrize("key", [b"", b"another"])
def test_another_key_is_told_from_a_change(store: str, key: bytes) -> None:
    """Where no hash fits it is the key; one that fits makes the others changes."""

    async def scenario() -> None:
        async with opened(store, audit_key=b"secret") as database:
            await history(database)
            assert not (await verify(database)).has_other_key
        async with opened(store, audit_key=key) as database:
            report = await verify(database)
            assert (True, 6) == (report.has_other_key, report.hashed)

    run_loop(scenario())
