"""Looks at a real Alertmanager: what no notification told is picked up, what is long gone ends, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import Row

from app.backends.alertmanager.client import AlertmanagerClient
from app.domain.alerts import MAX_VALUE
from app.engine.background.lookup import Lookup
from app.engine.stages.intake import take_in
from app.store.db.schema import episode, event, notification
from app.store.ledger.inbox import LOOKUP, Received
from tests.support.aio import run
from tests.support.clocks import SetClock
from tests.support.engine import Engine, engine, sqlite, until
from tests.support.entries import asked, poke
from tests.support.processes import wait_until
from tests.support.service import Service
from tests.support.web import WebServer

RECEIVER = "team.shop+remediator"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
EACH = 5 * MINUTE  # three looks are ten minutes,
SETTLED = 4  # and so many fifteen, in which the members are to have run
OLD = 3600.0
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR], ids=str)


class Looking:
    """An engine without a worker, and the looks that it would take by itself."""

    def __init__(self, one: Engine, bed: Any) -> None:
        self.one = one
        self.bed = bed
        self.every(EACH)

    def every(self, interval: timedelta) -> None:
        """Look this often, and know nothing of earlier looks."""
        clients = self.one.parts.clients
        client = AlertmanagerClient(clients.web(), clients.connections.of("alertmanager")["default"])
        self.lookup = Lookup(self.one.parts, self.one.box, client, interval)

    async def look(self, times: int = 1) -> list[str]:
        """Look, take in what was found, and let the time until the next look pass; the results."""
        results = []
        for _ in range(times):
            results.append(await self.lookup.look())
            await self.taken_in()
            self.one.forward(EACH)
        return results

    async def taken_in(self) -> None:
        """Take in all that waits."""
        while await take_in(self.one.parts):
            continue

    async def notified(self, count: int) -> None:
        """Deliver what Alertmanager has notified, once it is so much."""

        async def there() -> bool:
            return len(self.bed.notifications()) >= count

        await until(there, 10, f"{count} notifications")
        for body in self.bed.webhook.requests[:count]:
            parsed = json.loads(body.body)
            received = Received(self.one.clock(), parsed["receiver"], "key", len(parsed["alerts"]), 0, body.body)
            await self.one.box.record(received, 10)
        await self.taken_in()

    async def episodes(self) -> list[Row[Any]]:
        """Every episode, oldest first."""
        async with self.one.database.read() as tx:
            return list(await tx.execute(select(episode).order_by(episode.c.id)))

    async def found(self) -> int:
        """How many notifications look-ups have recorded."""
        async with self.one.database.read() as tx:
            return len(list(await tx.execute(select(notification.c.id).where(notification.c.receiver == LOOKUP))))

    def count(self, name: str, **labels: str) -> float:
        """A counter of this replica."""
        return self.one.parts.metrics.registry.get_sample_value(f"remediator_{name}_total", labels) or 0.0


@asynccontextmanager
async def looking(
    bed: Any, directory: Path, sink: WebServer, *, ahead: timedelta = timedelta(), store: str = ""
) -> AsyncIterator[Looking]:
    """Look for alerts of one receiver; with a store of its own it goes by that one's clock."""
    given: dict[str, Any] = {"connections": bed.connections(receivers=[RECEIVER]), "working": False}
    async with engine(store or sqlite(directory), directory, poke(sink), timed=bool(store), **given) as one:
        one.forward(ahead)
        yield Looking(one, bed)


def test_an_alert_that_nothing_told_of_is_picked_up_once(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """At once when it is old; the notification that comes after it is the same episode, and so is the next look."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD)
            bed.wait_grouped()
            assert ["complete"] == await it.look()
            (opened,) = await it.episodes()
            assert ("Down", ["poke"]) == (opened.alertname, opened.matched)
            await it.notified(1)
            await it.look(2)
            assert (1, 1, 1) == (len(await it.episodes()), len(await it.one.runs()), await it.found())
            assert (1, 3) == (it.count("lookup_alerts"), it.count("lookups", result="complete"))

    run(scenario())


def test_an_alert_that_is_too_large_hides_no_other(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Its label is too long to be kept: a look takes the others, and shows it as set aside once."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD, big="x" * (MAX_VALUE + 1), pod="huge")
            bed.push(age=OLD)
            bed.wait_grouped()
            assert ["complete"] == await it.look()
            rows = {bool(row.defect): row for row in await it.episodes()}
            assert (["poke"], []) == (rows[False].matched, rows[True].matched)
            assert {"alertname": "Down", "pod": "huge"} == rows[True].labels
            assert (1, 1.0) == (len(await it.one.runs()), it.count("alerts_set_aside"))
            await it.look(2)
            assert (2, 1) == (len(await it.episodes()), await it.found())

    run(scenario())


def test_a_later_start_at_the_only_member_that_answers_is_no_new_incident(
    tmp_path: Path, pair: Any, sink: WebServer
) -> None:
    """The other one, which merged the alert, is away; it may hold it since before."""

    async def scenario() -> None:
        async with looking(pair, tmp_path, sink) as it:
            now = datetime.now(UTC)
            for member, age in zip(pair.members, (3 * HOUR, HOUR / 6), strict=True):
                member.push({"alertname": "Down"}, starts_at=now - age)
            pair.wait_grouped()
            assert ["complete"] == await it.look()
            (opened,) = await it.episodes()
            async with it.one.database.write() as tx:  # as if it had been seen hours ago, and not since
                await tx.execute(update(episode).values(last_seen_at=now - 3 * HOUR, firing=[opened.fingerprint]))
            pair.members[0].stop()
            assert ["incomplete"] * 3 == await it.look(3)
            assert 1 == len(await it.episodes())

    run(scenario())


def test_a_replica_that_came_back_joins_what_the_other_one_still_holds(
    tmp_path: Path, bed: Any, sink: WebServer
) -> None:
    """Although that was notified of hours ago: Alertmanager repeats it seldom."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD * 3, prometheus_replica="a")
            bed.wait_grouped()
            await it.look()
            async with it.one.database.write() as tx:
                await tx.execute(update(episode).values(last_seen_at=it.one.clock() - 3 * HOUR))
            bed.push(prometheus_replica="b")
            await until_held(bed, 2)
            await it.look(2)
            (joined,) = await it.episodes()
            assert (2, 1) == (len(joined.firing), len(await it.one.runs()))

    run(scenario())


async def until_held(bed: Any, count: int) -> None:
    """Wait until Alertmanager holds so many alerts."""

    async def there() -> bool:
        return len(bed.members[0].alerts()) == count

    await until(there, 10, f"{count} alerts")


def test_the_audit_says_that_a_look_found_it(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """In the run's first event."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look()
            (found,) = await it.one.runs()
            async with it.one.database.read() as tx:
                query = select(event.c.message).where(event.c.run_id == found.id).order_by(event.c.id)
                assert f"found by a {LOOKUP}" == (await tx.execute(query)).scalars().first()

    run(scenario())


@pytest.mark.parametrize("ahead", [timedelta(), HOUR, -HOUR], ids=str)
def test_a_young_alert_is_left_to_its_notification_for_one_look(
    tmp_path: Path, bed: Any, sink: WebServer, ahead: timedelta
) -> None:
    """Alertmanager waits for its group; only what two looks in a row find missing is missing, whatever our clock."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink, ahead=ahead) as it:
            bed.push()
            bed.wait_grouped()
            await it.look()
            assert [] == await it.episodes()
            await it.look()
            assert 1 == len(await it.episodes())

    run(scenario())


def test_what_a_notification_told_is_not_picked_up(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Nor what is silenced, inhibited or routed to somebody else."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.silence(bed.members[0], "Silenced")
            bed.push("Outage", age=OLD)
            bed.wait_grouped("Outage")
            for name in ("Told", "Silenced", "Down", "Private"):
                bed.push(name, age=OLD)
                bed.wait_grouped(name)

            async def told() -> bool:
                names = {one["alerts"][0]["labels"]["alertname"] for one in bed.notifications()}
                return names == {"Told", "Outage"}

            await until(told, 10, "two notifications")
            await it.notified(len(bed.notifications()))
            await it.look(3)
            assert {"Told", "Outage"} == {one.alertname for one in await it.episodes()}
            assert 0 == await it.found()

    run(scenario())


def test_receivers_are_learnt_from_notifications(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Until one came nothing is concluded: the alerts of other teams are not ours."""

    async def scenario() -> None:
        connections = bed.connections()
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), connections=connections, working=False) as one:
            one.forward(20 * MINUTE)
            it = Looking(one, bed)
            bed.push("First", age=OLD)
            bed.wait_grouped("First")
            assert ["receiver_unknown"] == await it.look()
            await it.notified(1)
            bed.push("Second", age=OLD)
            bed.push("Private", age=OLD)
            bed.wait_grouped("Second")
            bed.wait_grouped("Private")
            await it.look()
            assert ["First", "Second"] == [row.alertname for row in await it.episodes()]

    run(scenario())


def test_an_episode_that_no_member_has_ends_after_three_looks(tmp_path: Path, pair: Any, sink: WebServer) -> None:
    """Its run is decided anew by that, and the alert's next life is a new episode."""

    async def scenario() -> None:
        async with looking(pair, tmp_path, sink) as it:
            pair.push(age=OLD)
            pair.wait_grouped()
            await it.look(SETTLED)
            pair.end()
            assert ["complete"] * 2 == await it.look(2)
            assert [None] == [row.closed_at for row in await it.episodes()]
            await it.look()
            (ended,) = await it.episodes()
            assert ended.closed_at
            assert 1 == it.count("lookup_episodes_ended")
            pair.push()
            pair.wait_grouped()
            await it.look(2)
            assert 2 == len(await it.episodes())

    run(scenario())


def test_silenced_is_not_gone(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """A suppressed alert fires."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look()
            bed.silence(bed.members[0])
            await it.look(6)
            assert [None] == [row.closed_at for row in await it.episodes()]

    run(scenario())


def test_an_alert_that_is_routed_elsewhere_now_is_not_gone(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Whether an alert fires does not depend on who is told."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push("Private", age=OLD)
            bed.wait_grouped("Private")
            (held,) = bed.members[0].alerts()
            keys = ("labels", "annotations", "startsAt", "fingerprint")
            await it.one.deliver({"status": "firing"} | {key: held[key] for key in keys})
            await it.look(6)
            assert [None] == [row.closed_at for row in await it.episodes()]

    run(scenario())


def test_nothing_ends_while_a_member_is_away_or_young(tmp_path: Path, pair: Any, sink: WebServer) -> None:
    """A restarted Alertmanager has no alert until Prometheus sends it again."""

    async def scenario() -> None:
        async with looking(pair, tmp_path, sink) as it:
            pair.push(age=OLD)
            pair.wait_grouped()
            await it.look()
            pair.end()
            first, second = pair.members
            await it.look(3)
            second.stop()
            assert ["incomplete"] == await it.look()
            second.start()
            await it.look(SETTLED + 1)  # counted anew from the last but one, since one was restarted
            assert [None] == [row.closed_at for row in await it.episodes()]
            for member in (first, second):
                member.stop()
            assert ["unreachable"] == await it.look()
            for member in (first, second):
                member.start()
            await it.look(SETTLED)  # too young until the last of these, which is the first that counts
            assert [None] == [row.closed_at for row in await it.episodes()]
            await it.look(2)
            assert [None] != [row.closed_at for row in await it.episodes()]

    run(scenario())


def test_a_look_that_missed_a_member_says_so(tmp_path: Path, pair: Any, sink: WebServer) -> None:
    """Though there is nothing that it might have ended; what fires is picked up all the same."""

    async def scenario() -> None:
        async with looking(pair, tmp_path, sink) as it:
            pair.push(age=OLD)
            pair.wait_grouped()
            pair.members[1].stop()
            assert ["incomplete"] == await it.look()
            assert [None] == [row.closed_at for row in await it.episodes()]

    run(scenario())


def test_a_restart_between_two_looks_begins_the_count_anew(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Though it answers every look and seems old enough, since our clock is ahead of its."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look()
            (server,) = bed.members
            await it.look()
            server.stop()
            server.start()  # and has forgotten the alert
            await it.look(3)
            assert [None] == [row.closed_at for row in await it.episodes()]
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look(4)
            assert [None] == [row.closed_at for row in await it.episodes()]
            assert 1 == len(await it.one.runs())

    run(scenario())


def test_a_delivery_begins_the_count_anew(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Whoever hears of the alert in between knows better than the looks before."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look()
            (held,) = bed.members[0].alerts()
            bed.end()
            await it.look(3)
            keys = ("labels", "annotations", "startsAt", "fingerprint")
            await it.one.deliver({"status": "firing"} | {key: held[key] for key in keys})
            await it.look(2)
            assert [None] == [row.closed_at for row in await it.episodes()]
            await it.look(2)
            assert [None] != [row.closed_at for row in await it.episodes()]

    run(scenario())


def test_looks_that_come_more_often_are_more(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """At one a minute, ten minutes are eleven looks, and fifteen sixteen."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            it.every(MINUTE)
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look(15)
            bed.end()
            await it.look(10)  # nearly an hour by the clock of this test
            assert [None] == [row.closed_at for row in await it.episodes()]
            await it.look()
            assert [None] != [row.closed_at for row in await it.episodes()]

    run(scenario())


@STEPS
@pytest.mark.parametrize("after", [0, 1, 2], ids=lambda after: f"after {after} looks without it")
def test_a_clock_that_is_set_ends_nothing_sooner_or_later(
    tmp_path: Path, bed: Any, sink: WebServer, step: timedelta, after: int
) -> None:
    """The third look without the alert ends its episode; when it ended is told by Alertmanager's clock."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look(SETTLED)
            bed.end()
            await it.look(after)
            it.one.forward(step)
            await it.look(2 - after)
            assert [None] == [row.closed_at for row in await it.episodes()]
            await it.look()
            (ended,) = await it.episodes()
            assert ended.closed_at
            assert abs(ended.resolved_at - datetime.now(UTC)) < MINUTE

    run(scenario())


@STEPS
def test_a_clock_that_is_set_makes_no_restarted_alertmanager_old(
    tmp_path: Path, bed: Any, sink: WebServer, step: timedelta
) -> None:
    """It has forgotten the alert; how long it runs is not told by our clock, whichever look is the first."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look()
            (server,) = bed.members
            server.stop()
            server.start()
            it.every(EACH)  # as after a restart of ours
            it.one.forward(step)
            await it.look(SETTLED + 1)
            assert [None] == [row.closed_at for row in await it.episodes()]
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look(3)
            assert ([None], 1) == ([row.closed_at for row in await it.episodes()], len(await it.one.runs()))

    run(scenario())


@STEPS
def test_a_step_of_the_database_is_no_delivery(
    tmp_path: Path, bed: Any, sink: WebServer, postgres_database: str, step: timedelta
) -> None:
    """It moves when episodes were seen last, at each look even; the third look without the alert ends this one."""

    async def scenario() -> None:
        dial = SetClock(postgres_database)
        async with looking(bed, tmp_path, sink, store=dial.url) as it:
            assert it.one.parts.timekeeper
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look(SETTLED)
            bed.end()
            for is_open in (True, True, False):
                dial.step(step)
                await it.one.parts.timekeeper.compare()
                await it.look()
                assert [is_open] == [row.closed_at is None for row in await it.episodes()]

    run(scenario())


def test_a_gap_between_looks_begins_both_counts_anew(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Another replica may have looked meanwhile, and the next look comes at once."""

    async def scenario() -> None:
        async with looking(bed, tmp_path, sink) as it:
            bed.push(age=OLD)
            bed.wait_grouped()
            await it.look(SETTLED)
            bed.end()
            await it.look(2)
            it.lookup.forget()
            await it.look(SETTLED + 1)
            assert [None] == [row.closed_at for row in await it.episodes()]
            await it.look()
            assert [None] != [row.closed_at for row in await it.episodes()]

    run(scenario())


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_the_service_looks_by_itself(
    request: pytest.FixtureRequest, store: str, bed: Any, sink: WebServer, tmp_path: Path
) -> None:
    """At its start, and then at each interval: what fired while it was away is acted on."""
    bed.push(age=OLD)
    bed.wait_grouped()
    catalog, config = tmp_path / "catalog.yaml", tmp_path / "config.yaml"
    catalog.write_text(json.dumps({"remediations": [poke(sink)]}))
    settings = {"urls": [member.url for member in bed.members], "receivers": [RECEIVER]}
    config.write_text(
        json.dumps(
            {
                "lookup": "1s",
                "scope": {"http": {"hosts": ["127.0.0.1"]}},
                "connections": {"alertmanager": {"default": settings}},
            }
        )
    )
    given: dict[str, Any] = {"catalog": [catalog], "config": config}
    if store == "postgresql":
        given["store"] = request.getfixturevalue("postgres_database")
    service: Service = request.getfixturevalue("start_service")(**given)
    wait_until(lambda: asked(sink) == 1, 20, "the remediation")
    text = httpx.get(f"{service.url}/metrics", trust_env=False).text
    assert "remediator_lookup_alerts_total 1.0" in text
