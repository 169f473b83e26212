"""Which catalog is the newest: as the store heard of them, or as replicas go back; reloads and restarts say nothing."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.earned_mode import Mark
from app.domain.reasons import Reason
from app.domain.remediation import Mode
from app.engine.outcomes import earned_mode
from app.engine.precedence import keep_current
from app.store.db.database import Database
from app.store.gates import earned_modes
from app.store.ledger import catalogs
from app.store.ledger.catalogs import UNSERVED
from tests.support.aio import run
from tests.support.alerts import NOW
from tests.support.engine import Engine, engine, until
from tests.support.entries import asked, poke
from tests.support.ledger import opened
from tests.support.web import WebServer

SOON, LATE = NOW + timedelta(minutes=4), NOW + UNSERVED


ALONE = True


async def order(database: Database, *served: tuple[str, str | None, bool]) -> list[str]:
    """The catalogs from the oldest to the newest, after replicas have said what they serve, and served before."""
    for digest, before, alone in served:
        async with database.write() as tx:
            await catalogs.serve(tx, digest, before, NOW, is_alone=alone)
    async with database.read() as tx:
        known = await catalogs.known(tx)
    return sorted(known, key=lambda digest: known[digest].number)


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        ([("a", None), ("b", "a")], ["a", "b"]),
        ([("a", None), ("b", None), ("a", "a")], ["a", "b"]),  # reloaded
        ([("a", None), ("b", None), ("a", None), ("b", None)], ["a", "b"]),  # restarted
        ([("a", None), ("b", "a"), ("a", "b")], ["b", "a"]),  # gone back to
        ([("a", None), ("b", "a"), ("a", "b"), ("a", "b")], ["b", "a"]),  # by both replicas
        # One that lags behind comes to the second when the other has the third.
        ([("a", None), ("b", "a"), ("c", "b"), ("b", "a"), ("c", "b")], ["a", "b", "c"]),
        ([("a", None), ("b", None), ("a", None, ALONE)], ["b", "a"]),  # nobody serves b any more
        ([("a", None), ("b", None), ("b", "b", ALONE)], ["a", "b"]),
    ],
)
def test_the_order_of_catalogs(store: str, served: list[Any], expected: list[str]) -> None:
    """By what replicas have read, and not by when they did."""

    async def scenario() -> None:
        async with opened(store) as database:
            assert expected == await order(database, *((*one, False)[:3] for one in served))

    run(scenario())


def test_what_nobody_has_said_to_serve_may_be_newer(store: str) -> None:
    """A replica records with a catalog in the moment in which it has loaded it; but that is over soon."""

    async def scenario() -> None:
        async with opened(store) as database:
            await order(database, ("a", None, False))
            async with database.read() as tx:
                assert await catalogs.is_older(tx, "a", "b", NOW, SOON)
                assert not await catalogs.is_older(tx, "a", "b", NOW, LATE)
                assert not await catalogs.is_older(tx, "a", "a", NOW, NOW)

    run(scenario())


async def _told(one: Engine) -> None:
    """Wait until a replica has said what it serves."""

    async def told() -> bool:
        return one.parts.currency.served == one.catalog().digest

    one.parts.work.set()
    await until(told, 10, "the replica to say what it serves")


def test_an_older_replica_leaves_alone_what_a_newer_one_has_recorded(
    postgres_database: str, tmp_path: Path, sink: WebServer
) -> None:
    """It neither denies nor does it, however often it is restarted, until it has those files itself."""

    async def scenario() -> None:
        async with engine(postgres_database, tmp_path, owner="older") as older:
            await _told(older)
        async with engine(postgres_database, tmp_path, poke(sink), owner="newer") as newer:
            await _told(newer)
            newer.loops[1].cancel()
            await newer.fire()
        for _ in range(2):
            async with engine(postgres_database, tmp_path, owner="older") as older:
                await _told(older)
                older.forward(timedelta(hours=1))  # a clock that is ahead makes nobody newer
                older.parts.currency.looked_at = -math.inf
                await keep_current(older.parts)
                assert older.parts.currency.newer
                await older.worker._claim()
                assert ["pending"] == [row.state for row in await older.runs()]
        async with engine(postgres_database, tmp_path, owner="older") as older:
            await _told(older)
            older.catalog.put(poke(sink))
            await _told(older)
            await older.ended(count=1)
            older.catalog.put()  # gone back to: now what waits is denied
            await _told(older)
            assert not older.parts.currency.newer
        assert 1 == asked(sink)

    run(scenario())


def test_going_back_denies_what_waits(postgres_database: str, tmp_path: Path, sink: WebServer) -> None:
    """The files were changed back under the replica: what is in them counts."""

    async def scenario() -> None:
        limits = {"rate": "1/1h", "cooldown": "0s"}
        async with engine(postgres_database, tmp_path) as one:
            await _told(one)
            one.catalog.put(poke(sink, limits=limits))
            await _told(one)
            await one.fire(name="first")
            await one.ended(count=1)
            await one.fire(name="second")
            await one.reached("succeeded", "deferred", count=2)
            one.catalog.put()
            one.forward(timedelta(hours=1, seconds=1))
            last = (await one.ended(count=2))[-1]
            assert Reason.REMEDIATION_REMOVED is Reason(last.reason)

    run(scenario())


def test_an_older_form_does_not_undo_what_a_newer_one_has_earned(
    postgres_database: str, tmp_path: Path, sink: WebServer
) -> None:
    """Each replica has its own form of a remediation: the newer one's record stays, and the older one's is nothing."""
    earn = {"approve_after": 2, "auto_after": 2, "demote_after": 2}

    async def scenario() -> None:
        old, new = poke(sink, earn=earn), poke(sink, earn=earn, max_age="2h", settle="1m")
        async with (
            engine(postgres_database, tmp_path, old, owner="older") as older,
            engine(postgres_database, tmp_path, owner="newer") as newer,
        ):
            await _told(older)
            newer.catalog.put(new)
            await _told(newer)
            for one in (older, newer, older, newer, older):
                async with one.parts.turn() as turn:
                    remediation = one.catalog().remediations["poke"]
                    await earned_mode.follow(turn, remediation)
                    await earned_mode.count(turn, remediation, "run", Mark.WOULD_ACT)
            async with newer.database.read() as tx:
                found = await earned_modes.get(tx, "poke")
            assert found is not None
            assert (newer.catalog().remediations["poke"].deed, Mode.APPROVE) == (found.digest, found.mode)

    run(scenario())
