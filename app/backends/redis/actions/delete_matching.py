"""redis.delete_matching: removes the keys of one Redis database whose names match a pattern.

Walks with SCAN and removes with UNLINK, so that the server is never blocked; never uses KEYS, never removes more than
`max`, and takes no pattern that matches everything (that is redis.flush).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from app.backends.action import Action, Context
from app.backends.redis.backend import REDIS
from app.domain.errors import PermanentError, TransientError
from app.domain.model import JsonObject, Value
from app.domain.permissions import Permission
from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk
from app.domain.texts import Text

if TYPE_CHECKING:
    from redis.asyncio import Redis

# One element of a Redis glob: an escaped character, a class, a wildcard, or a character that stands for itself.
_ELEMENT = re.compile(r"\\(?s:.)|(?P<any>\[(?:\\(?s:.)|[^\]\\])*(?:\]|$)|[*?])|(?s:.)")


class DeleteMatchingParams(Value):
    """Which keys to remove."""

    pattern: Annotated[str, Text.GLOB] = Field(
        min_length=1, max_length=1024, description="A Redis glob with at least one literal character."
    )
    max: int = Field(default=100_000, ge=1, le=10_000_000, description="Refuse to remove more keys than this.")
    batch: int = Field(default=500, ge=1, le=10_000, description="Keys per SCAN and UNLINK.")

    @field_validator("pattern")
    @classmethod
    def _not_everything(cls, pattern: str) -> str:
        if all(element["any"] for element in _ELEMENT.finditer(pattern)):
            msg = f"{pattern!r} has wildcards only and would match any key; to empty a database, use redis.flush"
            raise ValueError(msg)
        return pattern


class DeleteMatching(Action[DeleteMatchingParams]):
    """Removes matching keys in batches."""

    name = "redis.delete_matching"
    summary = "Remove the keys of a Redis database that match a pattern."
    Params = DeleteMatchingParams
    risk = Risk.DESTRUCTIVE
    target_backend = "redis"
    repeatable = False
    drifts = frozenset({"summary", "matching"})
    permissions = tuple(Permission(backend="redis", resource=name) for name in ("info", "scan", "select", "unlink"))

    async def plan(self, context: Context, params: DeleteMatchingParams) -> PlannedStep:
        """Count the keys that would be lost; stops counting once they are too many."""
        number = int(context.target.name)
        client = await REDIS.of(context)
        async with client.database(number) as redis:
            await client.require_primary(redis)
            await client.require_commands(redis, [one.resource for one in self.permissions])
            matching = await _count(redis, params)
        place = f"of Redis database {REDIS.instance(context.target)}/{number}"
        if matching > params.max:
            msg = f"more than {params.max} keys {place} match {params.pattern!r}"
            raise PermanentError(msg, reason=Reason.BOUNDS_REACHED)
        return self.planned(
            params,
            summary=f"remove {matching} keys {place} that match {params.pattern!r}",
            before={"matching": matching},
            desired={"matching": 0},
            changes=matching > 0,
        )

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """Remove the keys that match now, up to `max`; keys that appear meanwhile may stay."""
        params = DeleteMatchingParams.model_validate(step.params)
        removed = 0
        client = await REDIS.of(context)
        async with client.database(int(context.target.name)) as redis:
            await client.require_primary(redis)
            try:
                async for keys in _batches(redis, params):
                    if keys:
                        with client.sent_once("UNLINK"):
                            removed += await client.unlink(redis, keys[: params.max - removed])
                    if removed >= params.max:
                        break
            except TransientError as error:
                if not removed:
                    raise
                msg = f"{error.message}; {removed} keys were removed before"
                raise PermanentError(msg) from error
        return {"removed": removed, "stopped_at_max": removed >= params.max}


async def _batches(redis: Redis, params: DeleteMatchingParams) -> AsyncIterator[list[bytes | str]]:
    cursor = 0
    while True:
        cursor, keys = await redis.scan(cursor, match=params.pattern, count=params.batch)
        yield keys
        if cursor == 0:
            return


async def _count(redis: Redis, params: DeleteMatchingParams) -> int:
    seen: set[bytes | str] = set()  # SCAN may return a key twice
    async for keys in _batches(redis, params):
        seen.update(keys)
        if len(seen) > params.max:
            break
    return len(seen)
