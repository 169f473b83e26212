"""A shop's database with roles as the documentation asks for them, and sessions to be ended."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from app.backends.connections import Connections
from app.backends.postgres.backend import PostgresConnection
from app.backends.secrets import SecretSource
from app.domain.plans import Target
from tests.support.postgres import PostgresServer

PASSWORD = "correct-horse"


@dataclass
class Shop:
    """One test's database: `remediator_role` may do what the documentation says, `app_role` is the application."""

    server: PostgresServer
    database: str
    remediator_role: str
    app_role: str
    sessions: ExitStack = field(default_factory=ExitStack)

    def session(self, user: str = "", application: str = "shop") -> psycopg.Connection:
        """An idle session, by default of the application."""
        connection = psycopg.connect(
            self.server.database_url(self.database, user or self.app_role),
            application_name=application,
            autocommit=True,
        )
        self.sessions.callback(connection.close)
        return connection

    def connections(self, user: str = "") -> Connections:
        """A configuration whose instance `main` is the server, by default with the remediator's role."""
        host = f"{self.server.host}:{self.server.port}"
        return to_postgres(f"postgresql://{user or self.remediator_role}:{PASSWORD}@{host}/{self.database}")

    @property
    def target(self) -> Target:
        """This database as the engine resolves it."""
        return Target(backend="postgres", key=f"postgres:main/{self.database}", name=self.database)


def to_postgres(url: str) -> Connections:
    """A configuration whose instance `main` has this URL."""
    connection = PostgresConnection(url=SecretSource(value=SecretStr(url)))
    return Connections.model_validate({"postgres": {"main": connection}, "timeout": "5s"})


@contextmanager
def build(server: PostgresServer, url: str) -> Iterator[Shop]:
    """Make the roles, and drop them afterwards."""
    suffix = uuid.uuid4().hex[:8]
    shop = Shop(server, str(conninfo_to_dict(url)["dbname"]), f"remediator_{suffix}", f"app_{suffix}")
    server.execute(f"CREATE ROLE {shop.remediator_role} LOGIN IN ROLE pg_signal_backend, pg_read_all_stats")
    server.execute(f"CREATE ROLE {shop.app_role} LOGIN")
    try:
        with shop.sessions:
            yield shop
    finally:
        server.execute(f"DROP ROLE {shop.remediator_role}, {shop.app_role}")
