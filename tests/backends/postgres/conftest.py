"""The database that sessions are ended in and counted in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from app.backends.connections import Connections
from tests.support.postgres import PostgresServer
from tests.support.shop import Shop, build, to_postgres


@pytest.fixture
def configured() -> Callable[[str], Connections]:
    """Makes a configuration whose instance `main` has a given URL."""
    return to_postgres


@pytest.fixture
def shop(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Shop]:
    """A database with its roles."""
    with build(postgres_server, postgres_database) as made:
        yield made
