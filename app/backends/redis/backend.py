"""Redis servers: their numbered databases as targets."""

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
    from app.backends.preflight import Asking, Need
    from app.backends.redis.client import RedisClient

_MAX = 63
_MAX_DIGITS = 9


class RedisConnection(Value):
    """A Redis server; the URL is redis://, rediss:// or unix://, without a database number."""

    url: SecretSource


class RedisTarget(Value):
    """A numbered database of a Redis server that the configuration names under `connections.redis`."""

    instance: Template
    database: Template | int = 0


class RedisScope(ScopeBlock):
    """Which databases may be acted on."""

    databases: tuple[str, ...] = Field(default=(), description="Targets as instance/database number.")

    def objection(self, target: Target) -> str | None:
        """By instance and number."""
        place = target.key.partition(":")[2]
        if matches(place, self.databases):
            return None
        return f"redis target {place!r} is not in scope; add it to scope.redis.databases and restart"


class RedisTargets(TargetKind):
    """Numbered databases."""

    Fields = RedisTarget
    instance_field = "instance"
    example = "redis:cache/0"

    def field_objection(self, field: str, value: str) -> str | None:
        """A database is a number."""
        if field == "instance":
            fits = len(value) <= _MAX and INSTANCE.fullmatch(value) is not None
            return None if fits else f'"{value[: _MAX + 1]}" cannot be the name of a connection'
        fits = value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS
        return None if fits else f'"{value[: _MAX + 1]}" is not the number of a database'

    def known(self, fields: Mapping[str, Any]) -> Target | None:
        """Where both are spelled out."""
        instance, database = fields.get("instance"), fields.get("database", 0)
        if instance is None or database is None:
            return None
        return Target(backend="redis", key=f"redis:{instance}/{database}")

    async def claim(self, clients: Clients, fields: RedisTarget) -> Target:
        """The numbered database, which is known when it is used."""
        return (await REDIS.client(clients, fields.instance)).resolve(fields.instance, int(fields.database))

    def key_objection(self, rest: str) -> str | None:
        """Instance and number."""
        instance, _, number = rest.partition("/")
        fits = instance and number.isdecimal()
        return None if fits else f"must be a target's key as runs show it, for example {self.example}"


class RedisBackend(Backend["RedisClient"]):
    """Servers and their databases."""

    name = "redis"
    title = "Redis"
    instances = "Servers by name."
    Connection = RedisConnection
    Scope = RedisScope
    target = RedisTargets()

    async def connect(self, clients: Clients, instance: str) -> RedisClient:
        """A client of one server."""
        from app.backends.redis.client import RedisClient  # noqa: PLC0415

        return RedisClient(clients.connections.instance(self, instance), clients.connections.timeout)

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:
        """Whether its user gets in, and may run the commands that its steps and checks declare."""
        from app.backends.redis.preflight import needs  # noqa: PLC0415 - it imports all actions

        fields = asking.target(self.name)
        return needs(asking, RedisTarget.model_validate(fields)) if fields is not None else iter(())


BACKEND = REDIS = RedisBackend()
