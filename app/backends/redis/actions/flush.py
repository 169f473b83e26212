"""redis.flush: empties one numbered database of a Redis server.

Destroys data and cannot be undone; only the target's database is touched, never FLUSHALL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.backends.action import Action, Context
from app.backends.redis.backend import REDIS
from app.domain.model import JsonObject, Value
from app.domain.permissions import Permission
from app.domain.plans import PlannedStep
from app.domain.remediation import Risk

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from app.backends.redis.client import RedisClient


class FlushParams(Value):
    """Nothing to choose: the target names the database."""


class Flush(Action[FlushParams]):
    """Removes every key of a database with FLUSHDB ASYNC."""

    name = "redis.flush"
    summary = "Remove every key of a Redis database."
    Params = FlushParams
    risk = Risk.DESTRUCTIVE
    target_backend = "redis"
    repeatable = False
    drifts = frozenset({"summary", "keys", "used_memory_bytes"})
    permissions = tuple(Permission(backend="redis", resource=name) for name in ("dbsize", "flushdb", "info", "select"))

    async def plan(self, context: Context, params: FlushParams) -> PlannedStep:
        """Count the keys that would be lost."""
        number = int(context.target.name)
        client = await REDIS.of(context)
        async with client.database(number) as redis:
            await client.require_primary(redis)
            await client.require_commands(redis, [one.resource for one in self.permissions])
            before = await _state(client, redis)
        keys = before["keys"]
        return self.planned(
            params,
            summary=f"remove all {keys} keys of Redis database {REDIS.instance(context.target)}/{number}",
            before=before,
            desired={"keys": 0},
            changes=keys > 0,
        )

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:  # noqa: ARG002 - the target says it all
        """Empty the database; writers may already have put keys back when they are counted."""
        client = await REDIS.of(context)
        async with client.database(int(context.target.name)) as redis:
            await client.require_primary(redis)
            with client.sent_once("FLUSHDB"):
                await redis.flushdb(asynchronous=True)
                return await _state(client, redis)


async def _state(client: RedisClient, redis: Redis) -> JsonObject:
    memory = await redis.info("memory")
    return {"keys": int(await redis.dbsize()), "used_memory_bytes": client.whole_number(memory, "used_memory")}
