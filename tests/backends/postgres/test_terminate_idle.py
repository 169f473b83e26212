"""postgres.terminate_idle against a real server."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.postgres.actions.terminate_idle import TerminateIdle
from app.backends.postgres.backend import POSTGRES
from app.domain.errors import PermanentError, TransientError
from app.domain.model import JsonObject
from app.domain.plans import PlannedStep, Target
from app.domain.reasons import Reason
from app.domain.states import RunState
from tests.support import contexts
from tests.support.aio import run
from tests.support.engine import engine, remediation, sqlite
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port, wait_until
from tests.support.shop import Shop

ACTION = TerminateIdle()
HOUR = timedelta(hours=1)


def plan(shop: Shop, **given: Any) -> PlannedStep:
    """Plan with the remediator's own role; by default any idle session is idle for long enough."""
    return contexts.plan(shop.connections(), ACTION, shop.target, **{"idle_longer_than": "0", **given})


def apply(shop: Shop, step: PlannedStep) -> JsonObject:
    """Apply with the remediator's own role."""
    return contexts.apply(shop.connections(), ACTION, step, shop.target)


def is_alive(session: psycopg.Connection) -> bool:
    """Whether the server still answers in this session."""
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def pids(step: PlannedStep) -> list[int]:
    """The pids that a step would end."""
    return [pid for pid, _ in step.desired["terminated"]]


def test_ends_the_idle_sessions_of_its_database(shop: Shop) -> None:
    """What was planned is ended and gone when apply returns."""
    sessions = [shop.session(), shop.session()]
    step = plan(shop)
    result = apply(shop, step)
    assert {session.info.backend_pid for session in sessions} == set(pids(step))
    assert {"terminated": 2, "skipped": 0, "still_closing": 0, "connections": 0} == result
    assert [False, False] == [is_alive(session) for session in sessions]


def test_waits_until_the_sessions_are_gone(shop: Shop) -> None:
    """A backend that is slow to end is gone when apply returns."""
    session = shop.session()
    step = plan(shop)
    pid = session.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    awake = threading.Timer(0.5, os.kill, (pid, signal.SIGCONT))
    awake.start()
    try:
        result = apply(shop, step)
    finally:
        awake.join()
    assert (1, 0, 0) == (result["terminated"], result["still_closing"], result["connections"])


def test_the_plan_shows_each_session(shop: Shop) -> None:
    """The state before names what a person needs to judge."""
    session = shop.session(application="reports")
    step = plan(shop)
    selected = step.before["selected"][0]
    assert {"connections": 1, "idle": 1, "qualifying": 1} == {
        key: value for key, value in step.before.items() if key != "selected"
    }
    assert (session.info.backend_pid, shop.app_role, "reports", "idle") == tuple(
        selected[key] for key in ("pid", "user", "application", "state")
    )


def test_planning_changes_nothing(shop: Shop) -> None:
    """A plan leaves every session alone."""
    session = shop.session()
    plan(shop)
    assert is_alive(session)


def test_sessions_that_are_idle_too_briefly_are_waited_for(shop: Shop) -> None:
    """The step says when the first of them is due; those that it may not end do not count."""
    shop.session()
    shop.session(application="other")
    begun = datetime.now(UTC)
    step = plan(shop, idle_longer_than="1h", applications=["shop"])
    assert (False, []) == (step.changes, step.desired["terminated"])
    assert step.not_yet is not None
    assert step.not_yet.message.startswith("1 sessions of database ")
    assert step.not_yet.at is not None
    assert timedelta(minutes=59) < step.not_yet.at - begun <= timedelta(hours=1, seconds=10)


def test_without_idle_sessions_there_is_nothing_to_do(shop: Shop) -> None:
    """Time would not change that; nor does it wait where some are due already."""
    session = shop.session()
    step = plan(shop, applications=["reports"])
    assert (False, None) == (step.changes, step.not_yet)
    assert plan(shop).not_yet is None
    with session.transaction():
        assert plan(shop, idle_longer_than="1h").not_yet is None


def test_a_run_waits_until_sessions_are_due(shop: Shop, tmp_path: Path) -> None:
    """The alert comes before they are idle for so long: they are ended as soon as they are, in the same run."""

    async def scenario() -> None:
        entry = remediation(
            target={"postgres": {"instance": "main", "database": shop.database}},
            steps=[{"action": "postgres.terminate_idle", "with": {"idle_longer_than": "3s"}}],
            limits={"cooldown": "1h", "rate": "1/1d", "breaker": 1},
        )
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=shop.connections(), recheck=HOUR) as one:
            session = shop.session()
            await one.fire()
            (row,) = await one.reached(RunState.DEFERRED, count=1)
            assert (Reason.NOT_YET, None) == (row.reason, row.admitted_at)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, 1) == (row.state, row.attempt)
            assert not is_alive(session)

    run(scenario())


def test_applying_again_changes_nothing(shop: Shop) -> None:
    """The same plan meets only sessions that are gone, whatever came after them."""
    shop.session()
    step = plan(shop)
    apply(shop, step)
    later = shop.session()
    assert 0 == apply(shop, step)["terminated"]
    assert is_alive(later)


def test_a_session_that_went_to_work_is_spared(shop: Shop) -> None:
    """Sessions that are active when apply comes are no longer idle."""
    session, observer = shop.session(), shop.session("postgres")
    step = plan(shop)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(session.execute, "SELECT pg_sleep(1)")
        pid = session.info.backend_pid
        look = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        wait_until(lambda: observer.execute(look, [pid]).fetchone(), 10, "the session to be active")
        result = apply(shop, step)
        work.result()
    assert (0, 1) == (result["terminated"], result["skipped"])


def test_a_session_that_was_used_meanwhile_is_spared(shop: Shop) -> None:
    """A session that is idle again, but not for long enough, stays."""
    session = shop.session()
    wait_until(lambda: plan(shop, idle_longer_than="1s").changes, 10, "the session to be idle for 1s")
    step = plan(shop, idle_longer_than="1s")
    session.execute("SELECT 1")
    assert (1, 0) == (len(pids(step)), apply(shop, step)["terminated"])
    assert is_alive(session)


def test_another_session_with_a_planned_pid_is_spared(shop: Shop) -> None:
    """The start of the backend tells a reused pid apart."""
    session = shop.session()
    step = plan(shop)
    other = [[pid, "2001-01-01T00:00:00.000000+00:00"] for pid in pids(step)]
    result = apply(shop, step.model_copy(update={"desired": {"terminated": other}}))
    assert (0, 1) == (result["terminated"], result["skipped"])
    assert is_alive(session)


def test_superusers_are_spared(shop: Shop) -> None:
    """The sessions of a person at work on the server, and of its own tools, stay."""
    administrator, session = shop.session("postgres"), shop.session()
    step = plan(shop)
    assert [session.info.backend_pid] == pids(step)
    apply(shop, step)
    assert is_alive(administrator)


def test_our_own_sessions_are_spared(shop: Shop) -> None:
    """Another replica of the remediator is known by its application name, whatever its role."""
    replica = shop.session(application="remediator")
    assert not plan(shop).changes
    assert is_alive(replica)


def test_other_databases_are_spared(shop: Shop, postgres_server: PostgresServer) -> None:
    """Only the target's database is looked at."""
    url = postgres_server.database_url("postgres", shop.app_role)
    with psycopg.connect(url, autocommit=True):
        assert not plan(shop).changes


def test_never_more_than_max_and_the_longest_idle_first(shop: Shop) -> None:
    """What exceeds `max` stays, and the summary says that there was more."""
    oldest, _newer, _newest = shop.session(), shop.session(), shop.session()
    step = plan(shop, max=1)
    assert ([oldest.info.backend_pid], 3) == (pids(step), step.before["qualifying"])
    assert "the longest idle of 3" in step.summary
    assert 1 == apply(shop, step)["terminated"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"applications": ["web-*"]}, ["web-1"]),
        ({"exclude_applications": ["web-*"]}, ["batch"]),
        ({"users": ["nobody"]}, []),
        ({"users": ["app_*"], "applications": ["batch", "none"]}, ["batch"]),
    ],
)
def test_patterns_choose_sessions(shop: Shop, given: dict[str, Any], expected: list[str]) -> None:
    """Users and application names are matched as patterns, all of them at once."""
    shop.session(application="web-1")
    shop.session(application="batch")
    assert expected == [session["application"] for session in plan(shop, **given).before["selected"]]


@pytest.mark.parametrize(("in_transaction", "expected"), [(False, 0), (True, 2)])
def test_open_transactions_only_when_asked_for(shop: Shop, in_transaction: bool, expected: int) -> None:
    """Sessions idle in a transaction, aborted ones included, need `in_transaction`."""
    shop.session().execute("BEGIN")
    aborted = shop.session()
    aborted.execute("BEGIN")
    with pytest.raises(psycopg.errors.DivisionByZero):
        aborted.execute("SELECT 1/0")
    step = plan(shop, in_transaction=in_transaction)
    assert expected == len(pids(step))
    assert expected == (apply(shop, step)["terminated"] if step.changes else 0)


@pytest.mark.parametrize(
    ("revoked", "needed"), [("pg_signal_backend", "pg_signal_backend"), ("pg_read_all_stats", "pg_read_all_stats")]
)
def test_a_missing_role_is_named(shop: Shop, revoked: str, needed: str) -> None:
    """Without its rights the action neither ends sessions nor believes that there are none."""
    session = shop.session()
    shop.server.execute(f"REVOKE {revoked} FROM {shop.remediator_role}")
    with pytest.raises(PermanentError, match=needed) as caught:
        plan(shop)
    assert Reason.FORBIDDEN == caught.value.reason
    assert is_alive(session)


def test_a_role_that_is_lost_after_planning_is_forbidden(shop: Shop) -> None:
    """The server's own refusal while applying is a permanent error."""
    session = shop.session()
    step = plan(shop)
    shop.server.execute(f"REVOKE pg_signal_backend FROM {shop.remediator_role}")
    with pytest.raises(PermanentError) as caught:
        apply(shop, step)
    assert Reason.FORBIDDEN == caught.value.reason
    assert is_alive(session)


def test_an_unknown_database_is_not_found(shop: Shop) -> None:
    """A database that does not exist is told apart from a server that cannot be reached."""
    target = Target(backend="postgres", key="postgres:main/nope", name="nope")
    with pytest.raises(PermanentError, match="nope") as caught:
        contexts.plan(shop.connections(), ACTION, target)
    assert Reason.TARGET_NOT_FOUND == caught.value.reason


def test_an_unknown_login_is_forbidden(shop: Shop) -> None:
    """Trying again does not help a login that the server refuses, and its password stays out of the message."""
    with pytest.raises(PermanentError) as caught:
        contexts.plan(shop.connections("stranger"), ACTION, shop.target)
    assert (Reason.FORBIDDEN, False) == (caught.value.reason, "correct-horse" in caught.value.message)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql://u:correct-horse@127.0.0.1:{port}/shop", TransientError),
        ("postgresql://u:correct-horse@no-such-host.invalid/shop", TransientError),
        ("postgresql://u:p@correct-horse:{port}/shop", TransientError),
        ("postgres//u:correct-horse@127.0.0.1/shop", PermanentError),
        ("postgresql://u:correct-horse white@127.0.0.1/shop", PermanentError),
    ],
)
def test_no_part_of_the_url_is_in_an_error(
    configured: Callable[[str], Connections], url: str, error: type[Exception]
) -> None:
    """Neither a server that is away nor a URL that cannot be read tells what the URL holds."""
    target = Target(backend="postgres", key="postgres:main/shop", name="shop")
    with pytest.raises(error) as caught:
        contexts.plan(configured(url.format(port=free_port())), ACTION, target)
    assert "correct-horse" not in str(caught.value)


def test_resolving_asks_nothing_of_the_network(configured: Callable[[str], Connections]) -> None:
    """The target is known from the configuration alone, also of a server that is away."""
    connections = configured(f"postgresql://u@127.0.0.1:{free_port()}/orders")

    async def use(clients: Clients) -> list[tuple[str, str]]:
        postgres = await POSTGRES.client(clients, "main")
        targets = (postgres.resolve("main", None), postgres.resolve("main", "a/b"))
        return [(target.key, POSTGRES.instance(target)) for target in targets]

    assert [("postgres:main/orders", "main"), ("postgres:main/a/b", "main")] == contexts.with_clients(connections, use)


@pytest.mark.parametrize("name", ["", "a\0b", "é" * 32])
def test_impossible_database_names_are_refused(configured: Callable[[str], Connections], name: str) -> None:
    """A name that comes from a label cannot become anything but a database name."""

    async def use(clients: Clients) -> Target:
        return (await POSTGRES.client(clients, "main")).resolve("main", name)

    with pytest.raises(PermanentError):
        contexts.with_clients(configured("postgresql://u@127.0.0.1/shop"), use)
