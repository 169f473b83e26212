"""What the store's server keeps is looked up and told; a pooler that shares sessions is refused before it is used."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from app.domain.errors import ConfigError, StoreUnavailableError
from app.store.db import durability
from app.store.db.database import Database
from app.store.db.durability import Kept
from app.store.migrations.migrate import is_current, migrate
from tests.conftest import StartPostgres, StartService
from tests.support import pgbouncer
from tests.support.aio import run
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port


async def begin(url: str) -> None:
    """Bring a store up to date, as every start does."""
    database = Database(url)
    try:
        await migrate(database)
        assert await is_current(database)
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("mode", "size", "more"),
    [
        ("transaction", 1, ""),
        ("transaction", 2, "server_round_robin = 1\nmin_pool_size = 2"),
        ("transaction", 20, "server_round_robin = 1\nmin_pool_size = 5"),
        ("statement", 3, ""),
    ],
)
def test_a_pooler_that_shares_sessions_is_refused(
    postgres_server: PostgresServer, postgres_database: str, mode: str, size: int, more: str
) -> None:
    """With clear words, and before anything is set in a session that others get."""
    with pgbouncer.serve(postgres_server, mode, size=size, more=more) as port:
        url = make_url(postgres_database).set(port=port)
        with pytest.raises(ConfigError, match=r"pooler.*pool_mode = transaction.*Name the server itself"):
            run(begin(url.render_as_string(hide_password=False)))
        with psycopg.connect(str(url.render_as_string(hide_password=False)), autocommit=True) as next_one:
            for _ in range(2 * size):
                assert ("0",) == next_one.execute("SELECT current_setting('lock_timeout')").fetchone()
    assert [] == postgres_server.execute("SELECT 1 FROM pg_tables WHERE tablename = 'run'", database=str(url.database))


def test_a_pooler_that_keeps_sessions_will_do(postgres_server: PostgresServer, postgres_database: str) -> None:
    """Each client has a session of its own, as without it."""
    with pgbouncer.serve(postgres_server, "session", size=30) as port:
        run(begin(make_url(postgres_database).set(port=port).render_as_string(hide_password=False)))


def test_a_server_that_is_away_is_no_pooler() -> None:
    """It is unavailable, as anywhere else."""
    with pytest.raises(StoreUnavailableError):
        run(begin(f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"fsync": "off"}, Kept(crash=False, failover=False)),
        ({"fsync": "on", "full_page_writes": "off"}, Kept(crash=False, failover=False)),
        ({"fsync": "on", "full_page_writes": "on"}, Kept(crash=True, failover=False)),
        (
            {"fsync": "on", "full_page_writes": "on", "synchronous_standby_names": "one"},
            Kept(crash=True, failover=True),
        ),
    ],
)
def test_it_is_known_what_a_server_keeps(
    start_postgres: StartPostgres, settings: dict[str, str], expected: Kept
) -> None:
    """By what it is configured to wait for."""
    server = start_postgres(settings)

    async def look() -> Kept:
        database = Database(server.url)
        try:
            async with database.read() as tx:
                return await durability.look(tx)
        finally:
            await database.close()

    assert expected == run(look())


def test_a_start_tells_what_the_store_keeps(postgres_database: str, start_service: StartService) -> None:
    """In the log, to whoever asks whether it is ready, and in metrics."""
    service = start_service(store=postgres_database)
    assert "the store's server loses commits in a crash" in service.logs
    assert "no synchronous standby" in service.logs
    told: Any = service.get("/-/ready").text
    assert "store: keeps commits through a crash: no, through a failover: no" in told
    metrics = service.get("/metrics").text
    for through in ("crash", "failover"):
        assert f'remediator_store_keeps{{through="{through}"}} 0.0' in metrics
