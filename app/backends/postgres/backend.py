"""PostgreSQL servers: their databases as targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from app.backends.base import INSTANCE, Backend, ScopeBlock, TargetKind, matches
from app.backends.secrets import SecretSource
from app.domain.findings import Finding
from app.domain.model import Value
from app.domain.plans import Target
from app.domain.remediation import Template

if TYPE_CHECKING:
    from app.backends.instances import Clients
    from app.backends.postgres.client import PostgresClient
    from app.backends.preflight import Asking, Need

APPLICATION_NAME = "remediator"  # how sessions show that they are ours
_MAX = 63


class PostgresConnection(Value):
    """A PostgreSQL server; the URL is a libpq connection URI."""

    url: SecretSource


class PostgresTarget(Value):
    """A database of a PostgreSQL server that the configuration names under `connections.postgres`."""

    instance: Template
    database: Template | None = Field(default=None, description="Default: the database of the connection.")


class PostgresScope(ScopeBlock):
    """Which databases may be acted on."""

    databases: tuple[str, ...] = Field(default=(), description="Targets as instance/database.")
    own_databases: tuple[str, ...] = Field(
        default=(), description="Targets that are the remediator's own store (found by itself); never touched."
    )

    def objection(self, target: Target) -> str | None:
        """The own store is out of reach, with any patterns."""
        place = target.key.partition(":")[2]
        if place in self.own_databases:
            return f"postgres target {place!r} is the remediator's own store"
        if matches(place, self.databases):
            return None
        return f"postgres target {place!r} is not in scope; add it to scope.postgres.databases and restart"


class PostgresTargets(TargetKind):
    """Databases."""

    Fields = PostgresTarget
    instance_field = "instance"
    example = "postgres:main/orders"

    def field_objection(self, field: str, value: str) -> str | None:
        """A slash would make instance/database ambiguous, and with it the scope."""
        if field == "instance":
            fits = len(value) <= _MAX and INSTANCE.fullmatch(value) is not None
            return None if fits else f'"{value[: _MAX + 1]}" cannot be the name of a connection'
        fits = len(value) <= _MAX and value.isprintable() and "/" not in value
        return None if fits else f'"{value[: _MAX + 1]}" cannot be the name of a database'

    def known(self, fields: Mapping[str, Any]) -> Target | None:
        """Where both are spelled out; the database of a connection is known when it is read."""
        instance, database = fields.get("instance"), fields.get("database")
        if instance is None or database is None:
            return None
        return Target(backend="postgres", key=f"postgres:{instance}/{database}")

    async def claim(self, clients: Clients, fields: PostgresTarget) -> Target:
        """The database of the fields, or the one of the connection's URL."""
        return (await POSTGRES.client(clients, fields.instance)).resolve(fields.instance, fields.database)

    def key_objection(self, rest: str) -> str | None:
        """Instance and database."""
        instance, _, database = rest.partition("/")
        return None if instance and database else f"must be a target's key as runs show it, for example {self.example}"


class PostgresBackend(Backend["PostgresClient"]):
    """Servers and their databases."""

    name = "postgres"
    title = "PostgreSQL"
    instances = "Servers by name."
    Connection = PostgresConnection
    Scope = PostgresScope
    target = PostgresTargets()

    async def connect(self, clients: Clients, instance: str) -> PostgresClient:
        """A client of one server."""
        from app.backends.postgres.client import PostgresClient  # noqa: PLC0415

        return PostgresClient(clients.connections.instance(self, instance), clients.connections.timeout)

    def protect(
        self, block: PostgresScope, instances: Mapping[str, PostgresConnection], store_url: str
    ) -> PostgresScope:
        """The databases that are this service's own store."""
        if store_url.startswith("sqlite") or not instances:
            return block
        from app.backends.postgres.client import own_databases  # noqa: PLC0415 - its driver is needed only here

        own = (*block.own_databases, *own_databases(instances, store_url))
        return block.model_copy(update={"own_databases": own})

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:
        """Whether its login gets in, and has the roles that its steps and checks declare."""
        from app.backends.postgres.preflight import needs  # noqa: PLC0415 - it imports all actions

        fields = asking.target(self.name)
        return needs(asking, PostgresTarget.model_validate(fields)) if fields is not None else iter(())


BACKEND = POSTGRES = PostgresBackend()
