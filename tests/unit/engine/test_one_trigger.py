"""One episode, one run: however often, by whom and in which order its alert is delivered."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select, update

from app.backends.scope import Scope
from app.domain.alerts import MAX_PAIRS, MAX_VALUE
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.store.db.schema import episode, notification
from app.store.db.schema import run as run_table
from tests.support.aio import run
from tests.support.alerts import alert
from tests.support.engine import engine, sqlite, until
from tests.support.entries import asked, cache, flush, ok, poke, request
from tests.support.redis import RedisServer
from tests.support.web import WebServer


def test_an_alert_is_one_run_that_acts_and_verifies(tmp_path: Path, sink: WebServer, health: WebServer) -> None:
    """From the delivery to the verified end, each step of the way in the audit."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, verify=[ok(health)])) as one:
            await one.fire()
            (row,) = await one.ended()
            assert (RunState.SUCCEEDED, Reason.VERIFIED, None) == (row.state, row.reason, row.effective)
            assert (1, 1) == (asked(sink), asked(health, "/health"))
            expected = ["recorded", "running", "step_started", "step_succeeded", "verifying", "check", "succeeded"]
            assert expected == await one.kinds(row.id)

    run(scenario())


def test_repeats_make_no_second_run(tmp_path: Path, sink: WebServer) -> None:
    """In one notification, in a batch of them, and after the run has ended."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            down = one.firing()
            await one.record(down, down)
            await one.record(down)
            await one.deliver(down)
            await one.ended(count=1)
            await one.deliver(down)
            assert 1 == len(await one.runs())
            assert 1 == asked(sink)

    run(scenario())


def test_a_late_delivery_after_the_resolve_makes_no_second_run(tmp_path: Path, sink: WebServer) -> None:
    """The retry that a resolve has overtaken is recognised."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            down = one.firing()
            await one.deliver(down)
            await one.ended(count=1)
            await one.resolve()
            await one.deliver(down)
            assert 1 == len(await one.runs())

    run(scenario())


def test_each_time_that_an_alert_fires_is_a_run(tmp_path: Path, sink: WebServer) -> None:
    """A new episode is decided anew."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            for number in (1, 2):
                await one.fire()
                await one.ended(count=number)
                await one.resolve()
            assert 2 == asked(sink)

    run(scenario())


def test_a_pair_whose_starts_differ_triggers_once(tmp_path: Path, sink: WebServer) -> None:
    """One member merged the alert, the other was restarted; both deliver in turn, hour after hour."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            now = one.clock()
            starts = [now - timedelta(hours=7), now - timedelta(minutes=20)]
            for number in range(6):
                await one.deliver(alert(starts_at=starts[number % 2]))
                await one.ended(count=1)
                one.clock.ahead += timedelta(minutes=55)
            assert 1 == asked(sink)
            over = one.clock()
            await one.deliver(alert("resolved", starts_at=starts[1], ends_at=over))
            await one.fire()
            await one.ended(count=2)

    run(scenario())


def test_an_ha_prometheus_whose_resolves_are_lost_triggers_the_next_time(tmp_path: Path, sink: WebServer) -> None:
    """Hours later the next incident is decided, as with a single Prometheus."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            for number in (1, 2, 3):
                for replica in ("a", "b", "a"):
                    await one.deliver(alert(starts_at=one.clock(), prometheus_replica=replica))
                await one.ended(count=number)
                one.clock.ahead += timedelta(hours=3)
            assert 3 == asked(sink)

    run(scenario())


def test_alerts_of_one_notification_count_in_the_order_in_which_they_happened(tmp_path: Path, sink: WebServer) -> None:
    """A replica that came back hours later stands before the one that says that the alert fires all the time."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            steady = alert(starts_at=one.clock(), prometheus_replica="a")
            await one.deliver(steady)
            await one.ended(count=1)
            one.clock.ahead += timedelta(hours=5)
            back = alert(starts_at=one.clock() - timedelta(minutes=1), prometheus_replica="b")
            gone = alert("resolved", starts_at=one.clock(), ends_at=one.clock(), prometheus_replica="b")
            await one.deliver(back, steady)
            await one.deliver(gone, steady)
            assert 1 == len(await one.runs())

    run(scenario())


def test_an_episode_of_an_older_release_goes_on(tmp_path: Path, sink: WebServer) -> None:
    """It was stored with its fingerprints only, without when each began."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            down = one.firing()
            await one.deliver(down)
            async with one.database.write() as tx:
                await tx.execute(update(episode).values(firing=[down["fingerprint"]]))
            await one.deliver(down)
            await one.resolve()
            async with one.database.read() as tx:
                (row,) = await tx.execute(select(episode))
            assert (2 + 1, {}, True) == (row.deliveries, row.firing, row.closed_at is not None)

    run(scenario())


def test_alerts_about_two_replicas_of_a_database_are_two(tmp_path: Path, sink: WebServer) -> None:
    """The label `replica` names what is ill, and each is acted on."""

    async def scenario() -> None:
        step = request(sink, "/restore/{{ labels.replica }}")
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, steps=[step])) as one:
            await one.deliver(one.firing(replica="chi-0-0"), one.firing(replica="chi-0-1"))
            await one.ended(count=2)
            assert {"/restore/chi-0-0", "/restore/chi-0-1"} == {one.path for one in sink.requests}

    run(scenario())


def test_an_alert_that_nothing_matches_is_no_run(tmp_path: Path, sink: WebServer) -> None:
    """It is counted, and that is all."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            await one.fire(alertname="Other")
            assert [] == await one.runs()
            assert 1 == one.parts.metrics.episodes_unmatched._value.get()

    run(scenario())


def test_alerts_of_one_target_share_a_run(tmp_path: Path, redis_server: RedisServer) -> None:
    """Three crash-looping pods of one service: one flush, and the audit says who joined."""

    async def scenario() -> None:
        entry = flush("{{ labels.db }}", settle="10m")
        scope = Scope(redis={"databases": ("cache/*",)})
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=cache(redis_server), scope=scope) as one:
            with redis_server.client() as client:
                client.set("key", "value")
                client.config_resetstat()
                await one.deliver(*(one.firing(pod=f"pod-{number}", db="0") for number in range(3)))
                (row,) = await one.reached(RunState.VERIFYING, count=1)
                assert 2 == (await one.kinds(row.id)).count("joined")
                await one.resolve(pod="pod-0", db="0")
                await one.resolve(pod="pod-1", db="0")
                await one.reached(RunState.VERIFYING, count=1)
                await one.resolve(pod="pod-2", db="0")
                (row,) = await one.ended(count=1)
                assert (RunState.SUCCEEDED, True) == (row.state, row.effective)
                assert 1 == client.info("commandstats")["cmdstat_flushdb"]["calls"]

    run(scenario())


def test_a_notification_that_cannot_be_read_is_set_aside(tmp_path: Path, sink: WebServer) -> None:
    """The ones around it are taken in."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            await one.record(one.firing(pod="a"))
            await one.record(body=b"no json")
            await one.record(body=b"{}")
            async with one.database.write() as tx:
                last = select(func.max(notification.c.id)).scalar_subquery()
                damaged = update(notification).where(notification.c.id == last).values(body=b"\x28\xb5\x2f\xfdno")
                await tx.execute(damaged)
            await one.deliver(one.firing(pod="b"))
            await one.ended(count=2)
            async with one.database.read() as tx:
                rows = list(await tx.execute(select(notification).order_by(notification.c.id)))
            assert [False, True, True, False] == [row.set_aside is not None for row in rows]
            assert all(row.taken_in_at for row in rows)

    run(scenario())


class _Poisoned:
    """A catalog that one alert makes stumble, as a bug of ours would."""

    digest = "digest"

    def match(self, labels: dict[str, str]) -> tuple[()]:
        """Nothing matches, or an error."""
        if "poison" in labels:
            raise ZeroDivisionError
        return ()


def test_an_alert_that_makes_the_engine_fail_costs_no_other(tmp_path: Path, sink: WebServer) -> None:
    """Neither those of its own notification nor those of others; its notification says what happened."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            object.__setattr__(one.parts, "catalog", _Poisoned)
            poison = one.firing(poison="yes")
            await one.record(one.firing(pod="a"))
            await one.record(one.firing(pod="b"), poison, one.firing(pod="c"))
            await one.deliver(one.firing(pod="d"))
            async with one.database.read() as tx:
                rows = list(await tx.execute(select(notification).order_by(notification.c.id)))
            failed = f"{poison['fingerprint']}: unexpected ZeroDivisionError"
            assert [None, failed, None] == [row.set_aside for row in rows]
            metrics = one.parts.metrics
            assert (4, 1) == (metrics.episodes_unmatched._value.get(), metrics.alerts_set_aside._value.get())

    run(scenario())


def test_an_alert_that_is_too_large_costs_no_other(tmp_path: Path, sink: WebServer) -> None:
    """The others act, its own annotations are cut and it acts, too; one with too much of labels is shown and ends."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            now = one.clock()
            many = {f"label_{number}": "x" for number in range(MAX_PAIRS)}
            for status in ("firing", "firing", "resolved"):
                talkative = alert(status, starts_at=now, pod="b", annotations={"log": "x" * (MAX_VALUE + 1)})
                huge = alert(status, starts_at=now, pod="c", **many)
                broken = alert(status, pod="d") | {"startsAt": "noon"}
                await one.deliver(alert(status, starts_at=now, pod="a"), broken, talkative, huge)
                await one.ended(count=2)
            async with one.database.read() as tx:
                rows = list(await tx.execute(select(episode).order_by(episode.c.id)))
            assert [(None, ["poke"]), (None, ["poke"]), ("it has 502 labels, and 500 are the most", [])] == [
                (row.defect, row.matched) for row in sorted(rows, key=lambda row: row.defect or "")
            ]
            assert [3, 3, 3] == [row.deliveries for row in rows]
            assert all(row.closed_at for row in rows)
            assert 6 == one.parts.metrics.alerts_set_aside._value.get()

    run(scenario())


def test_a_storm_is_decided_to_the_last_alert(tmp_path: Path, sink: WebServer) -> None:
    """Two thousand alerts: as many act as the rate allows, every other one is put off with its reason."""

    async def scenario() -> None:
        entry = poke(sink, limits={"cooldown": "0s", "rate": "5/1h"}, without_guards={"storm": "counted here"})
        async with engine(sqlite(tmp_path), tmp_path, entry, recheck=timedelta(hours=1)) as one:
            await one.deliver(*(one.firing(pod=f"pod-{number}") for number in range(2000)))

            async def decided() -> bool:
                await asyncio.sleep(0.2)  # the question is about every run, and takes its time from the work
                states = {RunState.SUCCEEDED, RunState.DEFERRED}
                async with one.database.read() as tx:
                    query = select(func.count()).select_from(run_table).where(run_table.c.state.not_in(states))
                    return (await tx.execute(query)).scalar_one() == 0

            await until(decided, 90, "2000 decisions")
            rows = await one.runs()
            assert 2000 == len(rows)
            assert 5 == asked(sink) == sum(row.state == RunState.SUCCEEDED for row in rows)
            assert {None, Reason.RATE, Reason.VERIFIED} >= {row.reason for row in rows}

    run(scenario())


def test_what_was_resolved_before_anyone_looked_is_cancelled(tmp_path: Path, sink: WebServer) -> None:
    """Firing and resolved wait together in the inbox: nothing is done any more."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            down = one.firing()
            await one.record(down)
            await one.record(alert("resolved", starts_at=one.clock(), ends_at=one.clock() + timedelta(seconds=1)))
            await one.deliver()
            (row,) = await one.ended(count=1)
            assert (RunState.CANCELLED, Reason.RESOLVED_BEFORE_START) == (row.state, row.reason)
            assert 0 == asked(sink)

    run(scenario())
