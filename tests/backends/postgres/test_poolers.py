"""PostgreSQL behind PgBouncer in transaction mode: each transaction may be in another session; none is ours to keep."""

from __future__ import annotations

import psycopg
import pytest

from app.backends.postgres.actions.terminate_idle import TerminateIdle
from app.backends.postgres.checks.connections import Connections
from tests.support import contexts, pgbouncer
from tests.support.shop import Shop, to_postgres

ACTION = TerminateIdle()


@pytest.mark.parametrize("forced", [False, True])
def test_runs_through_a_pooler_leave_nothing_behind(shop: Shop, forced: bool) -> None:
    """Time after time; and who has the session next has no time-out of ours, and no statement of ours in it."""
    with pgbouncer.serve(shop.server, user=shop.remediator_role if forced else "") as port:
        url = f"postgresql://{shop.remediator_role}@127.0.0.1:{port}/{shop.database}"
        through = to_postgres(url)
        for _ in range(8):
            sessions = [shop.session(application=f"worker-{number}") for number in range(2)]
            given = {"idle_longer_than": "0", "applications": ["worker-*"]}
            step = contexts.plan(through, ACTION, shop.target, **given)
            result = contexts.apply(through, ACTION, step, shop.target)
            assert (2, 0) == (result["terminated"], result["still_closing"])
            assert contexts.observe(through, Connections(), shop.target, max=50).held
            for session in sessions:
                session.close()
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as next_one:
            for _ in range(4):
                names = ("statement_timeout", "search_path", "DateStyle", "IntervalStyle")
                found = [next_one.execute("SELECT current_setting(%s)", [name]).fetchone() for name in names]
                assert [("0",), ('"$user", public',), ("ISO, MDY",), ("postgres",)] == found
                assert [] == next_one.execute("SELECT name FROM pg_prepared_statements").fetchall()
            next_one.execute("SELECT pg_sleep(5.5)")  # longer than the time-out of the connection
