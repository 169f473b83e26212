"""What a changed catalog means for alerts that fire and for runs that wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from app.catalog.catalog import Catalog
from app.domain.alerts import Alert
from app.domain.errors import ConflictError
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.explain import explain
from app.engine.outcomes.retry import decide_again
from app.store.audit.chain import Entry
from tests.support.aio import run
from tests.support.engine import Engine, engine, sqlite, until
from tests.support.entries import asked, poke
from tests.support.web import WebServer


def test_a_remediation_that_is_added_acts_at_the_next_delivery(tmp_path: Path, sink: WebServer) -> None:
    """The alert fires already; what it has triggered before is not triggered again."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            down = one.firing()
            await one.deliver(down)
            await one.ended(count=1)
            one.catalog.put(poke(sink), poke(sink, name="added"))
            await one.deliver(down, down)
            rows = await one.ended(count=2)
            assert ["poke", "added"] == [row.remediation for row in rows]
            await one.deliver(down)
            assert (2, 2) == (len(await one.runs()), asked(sink))

    run(scenario())


async def deferred(one: Engine) -> None:
    """A run that waits because the global rate is used up by another one."""
    await one.fire(name="first")
    await one.ended(count=1)
    await one.fire(name="second")
    await one.reached("succeeded", "deferred", count=2)


def test_a_waiting_run_of_a_removed_remediation_is_denied(tmp_path: Path, sink: WebServer) -> None:
    """What the operator took away must not act any more."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, limits={"rate": "1/1h", "cooldown": "0s"})) as one:
            await deferred(one)
            one.catalog.put()
            one.forward(timedelta(hours=1, seconds=1))
            last = (await one.ended(count=2))[-1]
            assert (RunState.DENIED, Reason.REMEDIATION_REMOVED, 1) == (last.state, last.reason, asked(sink))

    run(scenario())


def test_a_waiting_run_follows_its_changed_remediation(tmp_path: Path, sink: WebServer) -> None:
    """A mode that was lowered meanwhile holds for it too, and the audit says what happened."""

    async def scenario() -> None:
        limits = {"rate": "1/1h", "cooldown": "0s"}
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, limits=limits)) as one:
            await deferred(one)
            one.catalog.put(poke(sink, limits=limits, mode="observe"))
            one.forward(timedelta(hours=1, seconds=1))
            last = (await one.ended(count=2))[-1]
            assert (RunState.OBSERVED, 1) == (last.state, asked(sink))
            assert "mode" not in last.spec  # the default, which is observe
            assert "respecified" in await one.kinds(last.id)

    run(scenario())


def test_an_older_catalog_decides_nothing_about_a_newer_run(tmp_path: Path, sink: WebServer) -> None:
    """A replica whose files lag behind waits instead of denying what another one has recorded."""

    async def scenario() -> None:
        store = sqlite(tmp_path)
        async with engine(store, tmp_path, poke(sink), working=False) as newer:
            await newer.fire()
        async with engine(store, tmp_path, owner="replica-2") as older:
            older.catalog.current = _loaded_earlier(older)
            older.parts.work.set()

            async def postponed() -> bool:
                (row,) = await older.runs()
                return row.not_before > row.created_at

            await until(postponed, 10, "the run to be put off")
            (row,) = await older.runs()
            assert RunState.PENDING is RunState(row.state)

    run(scenario())


def _loaded_earlier(one: Engine) -> Catalog:
    return replace(one.catalog.current, loaded_at=one.clock() - timedelta(minutes=5))


def test_a_person_can_have_an_ended_run_decided_again(tmp_path: Path, sink: WebServer) -> None:
    """Observed first, then let loose: the same alert gets a run that acts, and only one."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, mode="observe")) as one:
            await one.fire()
            (row,) = await one.ended(count=1)
            one.catalog.put(poke(sink))
            async with one.database.write() as tx:
                entry = Entry("asked for by jane", actor="jane")
                again = await decide_again(tx, row.id, one.catalog(), entry, one.clock())
            one.parts.work.set()
            last = (await one.ended(count=2))[-1]
            assert (again.id, RunState.SUCCEEDED, 1) == (last.id, last.state, asked(sink))
            assert ["recorded", "asked_for"] == (await one.kinds(last.id))[:2]
            await one.resolve()
            assert "have resolved" in await _refusal(one, last.id)

    run(scenario())


def test_what_is_at_work_is_not_decided_again(tmp_path: Path, sink: WebServer) -> None:
    """Neither a run that waits, nor an ended one whose alert another run works for."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), working=False) as one:
            await one.fire()
            (row,) = await one.runs()
            assert "only a run that has ended" in await _refusal(one, row.id)

    run(scenario())


async def _refusal(one: Engine, run_id: str) -> str:
    async with one.database.write() as tx:
        try:
            await decide_again(tx, run_id, one.catalog(), Entry(), one.clock())
        except ConflictError as error:
            return error.message
    return "none"


def test_plan_says_that_an_alert_has_had_its_run(tmp_path: Path, sink: WebServer) -> None:
    """Otherwise it would promise what will not happen; and what the limits would say of a retry."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, limits={"cooldown": "10m"})) as one:
            down = one.firing()
            before = await explain(one.parts, Alert.model_validate(down))
            assert (True, "would_run") == (before.would_act, before.prospects[0].verdict)
            await one.deliver(down)
            (row,) = await one.ended(count=1)
            after = await explain(one.parts, Alert.model_validate(down))
            assert (False, "has_run") == (after.would_act, after.prospects[0].verdict)
            (has_run,) = after.prospects
            assert f"POST /remediations/{row.id}/retry, which would wait (cooldown): " in has_run.message
            assert ("would_wait", 1) == (has_run.retry, len(has_run.plan.steps if has_run.plan else ()))
            assert Reason.COOLDOWN in {decision.reason for decision in has_run.decisions}
            one.forward(timedelta(hours=1))
            (has_run,) = (await explain(one.parts, Alert.model_validate(down))).prospects
            assert ("has_run", "would_run") == (has_run.verdict, has_run.retry)
            assert has_run.message.endswith(f"/remediations/{row.id}/retry, which would run")

    run(scenario())


def test_a_retry_is_the_attempt_that_it_repeats(tmp_path: Path, sink: WebServer) -> None:
    """As the API records it, so that the preview and the retry meet the same limit."""

    async def scenario() -> None:
        sink.status = 404
        limits = {"cooldown": "0s", "rate": "1000/1h", "attempts": 2}
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, limits=limits)) as one:
            down = one.firing()
            await one.deliver(down)
            await one.ended(count=2)
            (prospect,) = (await explain(one.parts, Alert.model_validate(down))).prospects
            assert "attempt 2 of 2" in {decision.message for decision in prospect.decisions}

    run(scenario())


def test_plan_says_that_a_run_is_not_over(tmp_path: Path, sink: WebServer) -> None:
    """Nobody has to wait for the alert to resolve, and nothing is to be retried."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, mode="approve")) as one:
            down = one.firing()
            await one.deliver(down)
            (row,) = await one.reached(RunState.AWAITING_APPROVAL, count=1)
            (prospect,) = (await explain(one.parts, Alert.model_validate(down))).prospects
            told = f"triggered run {row.id} (awaiting_approval), which is not over: GET /remediations/{row.id} says"
            assert ("has_run", True) == (prospect.verdict, told in prospect.message)

    run(scenario())
