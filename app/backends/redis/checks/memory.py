"""redis.memory: whether a Redis server uses little enough memory."""

from __future__ import annotations

from pydantic import ByteSize, Field, model_validator

from app.backends.check import Check, CheckContext, observation, observing
from app.backends.redis.backend import REDIS
from app.domain.errors import CheckError
from app.domain.model import Value
from app.domain.permissions import Permission
from app.domain.plans import Observation


class MemoryParams(Value):
    """The bound: one of `max` and `max_ratio`."""

    max: ByteSize | None = Field(default=None, description="Bytes, or a size such as 400MB or 1.5GiB.")
    max_ratio: float | None = Field(default=None, gt=0, le=1, description="Share of maxmemory.")

    @model_validator(mode="after")
    def _one_bound(self) -> MemoryParams:
        if (self.max is None) == (self.max_ratio is None):
            msg = "exactly one of max and max_ratio must be given"
            raise ValueError(msg)
        return self


class Memory(Check[MemoryParams]):
    """Compares used_memory of the whole server."""

    name = "redis.memory"
    summary = "A Redis server uses little enough memory."
    Params = MemoryParams
    target_backend = "redis"
    permissions = (Permission(backend="redis", resource="info"), Permission(backend="redis", resource="select"))

    async def observe(self, context: CheckContext, params: MemoryParams) -> Observation:
        """Read INFO memory once."""
        with observing():
            client = await REDIS.of(context)
            async with client.database(int(context.target.name)) as redis:
                await client.require_data(redis)
                memory = await redis.info("memory")
                used = client.whole_number(memory, "used_memory")
                limit = client.whole_number(memory, "maxmemory") if "maxmemory" in memory or params.max is None else 0
        most = _most(params, limit)
        message = f"{used} bytes used, at most {most} should be"
        return observation(used <= most, message, used_memory_bytes=used, maxmemory_bytes=limit)


def _most(params: MemoryParams, limit: int) -> int:
    if params.max is not None:
        return int(params.max)
    if not limit:
        msg = "max_ratio needs a limit, and maxmemory of this Redis is 0 (none); use max"
        raise CheckError(msg)
    return int(limit * (params.max_ratio or 0))
