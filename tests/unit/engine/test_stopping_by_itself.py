"""What keeps the engine from acting: pauses, freezes, breakers, storms, how much runs at once."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.engine import Row

from app.domain.durations import Rate
from app.domain.obstacles import Breaker, Hold
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.store.audit.chain import catalog_chain
from app.store.db.schema import breaker, message, storm
from app.store.gates import breakers, pauses
from app.store.gates.pauses import Held
from app.store.queries import search
from tests.support.aio import run
from tests.support.engine import Engine, engine, sqlite, until
from tests.support.entries import asked, poke, request
from tests.support.web import WebServer

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


async def paused(one: Engine, held: Held, until: timedelta | None = None) -> None:
    """Put a pause."""
    now = one.clock()
    async with one.database.write() as tx:
        await pauses.put(tx, held, Hold(held.scope, "ann", "because", None if until is None else now + until), now)


async def told(one: Engine) -> list[str]:
    """The titles of all messages but those of single runs that failed, in order."""
    async with one.database.read() as tx:
        titles = list((await tx.execute(select(message.c.title).order_by(message.c.id))).scalars())
    return [title for title in titles if not title.startswith("Failed: ")]


def test_a_paused_run_goes_on_when_the_pause_is_taken_away(tmp_path: Path, sink: WebServer) -> None:
    """With who and why in its message; not before."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), recheck=HOUR) as one:
            await paused(one, Held("all"))
            await one.fire()
            (row,) = await one.reached(RunState.DEFERRED)
            assert (Reason.PAUSED, 0) == (row.reason, asked(sink))
            assert "ann" in row.message
            assert "because" in row.message
            async with one.database.write() as tx:
                await pauses.take(tx, Held("all"), "ann", "ann", one.clock())
            one.parts.work.set()
            await one.ended(count=1)
            assert 1 == asked(sink)

    run(scenario())


def test_a_pause_on_another_remediation_or_target_is_none(tmp_path: Path, sink: WebServer) -> None:
    """Only what is named waits, and no longer than the pause."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), recheck=HOUR) as one:
            await paused(one, Held("remediation", "other"))
            await paused(one, Held("target", "redis:cache/0"))
            await one.fire()
            await one.ended(count=1)
            await paused(one, Held("remediation", "poke"), MINUTE)
            await one.fire(pod="b")
            _, row = await one.reached(RunState.SUCCEEDED, RunState.DEFERRED, count=2)
            assert Reason.PAUSED is Reason(row.reason)
            one.forward(MINUTE)
            await one.ended(count=2)
            assert 2 == asked(sink)

    run(scenario())


def test_a_freeze_of_the_catalog_defers_to_its_end(tmp_path: Path, sink: WebServer) -> None:
    """The run says why it waits, and goes on then."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            begins, ends = one.clock() - MINUTE, one.clock() + HOUR
            freeze = {"name": "move", "summary": "We move.", "begins": begins.isoformat(), "ends": ends.isoformat()}
            one.catalog.put(poke(sink), freezes=[freeze])
            await one.fire()
            (row,) = await one.reached(RunState.DEFERRED)
            assert (Reason.FROZEN, ends) == (row.reason, row.not_before)
            assert "We move." in row.message
            one.forward(HOUR)
            await one.ended(count=1)
            assert 1 == asked(sink)

    run(scenario())


def test_a_remediation_that_fails_again_and_again_stops_itself(tmp_path: Path, sink: WebServer) -> None:
    """Opens after three, tells people once, lets one trial through, and closes when that helps."""

    async def scenario() -> None:
        entry = poke(sink, limits={"cooldown": "0s", "rate": "1000/1h", "breaker": 3, "breaker_pause": "30m"})
        async with engine(sqlite(tmp_path), tmp_path, entry, recheck=HOUR, channel="oncall") as one:
            sink.status = 404
            for number in range(3):
                await one.fire(pod=f"pod-{number}")
                await one.ended(count=number + 1)
            await one.fire(pod="pod-3")
            await one.fire(pod="pod-4")
            rows = (await one.reached(RunState.FAILED, RunState.DEFERRED, count=5))[3:]
            assert [Reason.BREAKER_OPEN] * 2 == [row.reason for row in rows]
            assert ["Breaker open: remediation poke has stopped"] == await told(one)
            async with one.database.read() as tx:
                (opened,) = await search.events(tx, catalog_chain("poke"))
            assert ("breaker_opened", "remediator", 3) == (opened.kind, opened.actor, opened.data["failures"])
            sink.status = 200
            one.forward(30 * MINUTE)

            async def tried() -> list[Row[Any]]:
                return [row for row in await one.runs() if row.state == RunState.SUCCEEDED]

            (trial,) = await until(tried, 10, "the trial")
            async with one.database.read() as tx:
                assert trial.id == (await breakers.get(tx, "poke")).trial  # its alert fires: did it help?
            await one.resolve(pod=trial.labels["pod"])
            await one.ended(count=5)
            assert 5 == asked(sink)
            async with one.database.read() as tx:
                assert Breaker() == await breakers.get(tx, "poke")

    run(scenario())


def test_a_further_rung_is_no_trial(tmp_path: Path, sink: WebServer) -> None:
    """A run that was let through before the breaker opened goes on, and does not close it by its end."""

    async def scenario() -> None:
        entry = poke(sink, settle="5m", escalate=[{"steps": [request(sink, "/more")]}])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()

            async def settling() -> bool:
                (row,) = await one.reached(RunState.VERIFYING, count=1)
                return row.settle_until is not None

            await until(settling, 10, "the alert to be waited for")
            opened = Breaker(3, one.clock(), one.clock() + HOUR)
            async with one.database.write() as tx:
                await tx.execute(insert(breaker).values(remediation="poke", **asdict(opened)))
            one.forward(6 * MINUTE)
            await until(lambda: more(sink), 10, "the second rung to be tried")
            await one.resolve()
            await one.ended(count=1)
            async with one.database.read() as tx:
                assert opened == await breakers.get(tx, "poke")

    run(scenario())


async def more(sink: WebServer) -> bool:
    """Whether the second rung has acted."""
    return bool(asked(sink, "/more"))


def test_a_storm_touches_nothing_and_pages_once(tmp_path: Path, sink: WebServer) -> None:
    """More alerts at once than are single faults; when it is over what still fires is decided."""

    async def scenario() -> None:
        entry = poke(sink, limits={"cooldown": "0s", "rate": "1000/1h", "storm": "5/10m"})
        rules = {"recheck": HOUR, "channel": "oncall", "storm_pause": 10 * MINUTE, "concurrency": 100}
        async with engine(sqlite(tmp_path), tmp_path, entry, **rules) as one:
            await one.deliver(*(one.firing(pod=f"pod-{number}") for number in range(30)))
            rows = await one.reached(RunState.DEFERRED, count=30)
            assert ({Reason.STORM}, 0) == ({row.reason for row in rows}, asked(sink))
            assert 1 == len(await told(one))
            for number in range(5, 30):
                await one.resolve(pod=f"pod-{number}")
            one.forward(21 * MINUTE)
            rows = await one.ended(count=30)
            assert 5 == asked(sink) == sum(row.state == RunState.SUCCEEDED for row in rows)
            assert 1 == len(await told(one))

    run(scenario())


def test_a_storm_over_all_remediations_stops_each_of_them(tmp_path: Path, sink: WebServer) -> None:
    """However few alerts each one has."""

    async def scenario() -> None:
        entries = [poke(sink, name=f"poke-{kind}", matchers=[f'alertname="{kind}"']) for kind in "abcd"]
        rules = {"recheck": HOUR, "storm": (Rate(3, 10 * MINUTE),), "channel": "oncall"}
        async with engine(sqlite(tmp_path), tmp_path, *entries, **rules) as one:
            await one.deliver(*(one.firing(alertname=kind) for kind in "abcd"))
            rows = await one.reached(RunState.DEFERRED, count=4)
            assert ({Reason.STORM}, 0) == ({row.reason for row in rows}, asked(sink))
            async with one.database.read() as tx:
                assert [""] == list((await tx.execute(select(storm.c.remediation))).scalars())
            assert ["Storm: every remediation holds still"] == await told(one)

    run(scenario())


def test_no_more_runs_act_at_once_than_may(tmp_path: Path, sink: WebServer) -> None:
    """The others wait, and each that ends lets the next one go on."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), recheck=HOUR, concurrency=2) as one:
            sink.answering.clear()
            await one.deliver(*(one.firing(pod=f"pod-{number}") for number in range(5)))
            rows = await one.reached(RunState.RUNNING, RunState.DEFERRED, count=5)
            waiting = [row for row in rows if row.state == RunState.DEFERRED]
            assert ([Reason.CONCURRENCY] * 3) == [row.reason for row in waiting]
            sink.answering.set()
            await one.ended(count=5)
            assert 5 == asked(sink)

    run(scenario())
