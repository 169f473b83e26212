"""Redis servers, for the actions and checks on redis targets.

One connection per use, so that a rotated secret file is honoured. The SDK's own retries are off: it would send a
FLUSHDB again whose answer was lost. Errors leave as those of app.domain.errors and never carry the connection URL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from app.backends.redis.backend import RedisConnection
from app.backends.redis.errors import answered, code_of, lost, translated
from app.backends.redis.parser import Client, Parser
from app.backends.redis.rights import Rights, rights
from app.domain.errors import PermanentError
from app.domain.plans import Target
from app.domain.reasons import Reason


class RedisClient:
    """One server, by the connection URL of the configuration."""

    def __init__(self, connection: RedisConnection, timeout: timedelta) -> None:
        self._url = connection.url
        self._timeout = timeout.total_seconds()

    def resolve(self, instance: str, database: int) -> Target:
        """Name the numbered database to act on; asks nothing of the network."""
        if database < 0:
            msg = f"{database} is no Redis database: they are numbered from 0"
            raise PermanentError(msg, reason=Reason.TARGET_NOT_FOUND)
        return Target(backend="redis", key=f"redis:{instance}/{database}", name=str(database))

    @asynccontextmanager
    async def database(self, number: int) -> AsyncIterator[Redis]:
        """Connect to a numbered database; a connection that is lost in the body counts as without effect.

        Wrap commands with an effect in `sent_once`.
        """
        options = self._options()
        address = _address(options)
        pool = ConnectionPool(**options)
        client = Client(connection_pool=pool, single_connection_client=True)
        try:
            with _translating(address, connecting=True):
                await client.initialize()
            with _translating(address):
                await _select(client, number, address)
                yield client
        finally:
            await client.aclose()
            await pool.disconnect()

    @contextmanager
    def sent_once(self, command: str) -> Iterator[None]:
        """Go around a command that must not be sent twice: when its answer is lost, its effect is unknown."""
        try:
            yield
        except exceptions.RedisError as error:
            address = _address(self._options())
            raise (translated(error, address) if answered(error) else lost(error, address, command)) from None

    @staticmethod
    async def require_data(redis: Redis) -> None:
        """Refuse a server that speaks Redis' protocol and holds no data, such as a Sentinel."""
        if await _mode(redis) == "sentinel":
            msg = "this is a Sentinel, which holds no data; name the primary that it watches (SENTINEL MASTERS)"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID)

    @classmethod
    async def require_primary(cls, redis: Redis) -> None:
        """Refuse a replica: a write would be rejected, or make it differ from its primary until the next full sync."""
        await cls.require_data(redis)
        role = (await redis.info("replication")).get("role")
        if role == "slave":
            msg = "this Redis is a replica; name its primary as the target"
            raise PermanentError(msg, reason=Reason.FORBIDDEN)
        if role != "master":
            msg = "this server does not tell in INFO that it is a primary; name a Redis server as the target"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID)

    @staticmethod
    def whole_number(told: Mapping[str, Any], name: str) -> int:
        """A number out of INFO; raises PermanentError where this server does not tell it."""
        try:
            return int(told[name])
        except (KeyError, TypeError, ValueError):
            msg = f"this server does not tell {name} in INFO, as Redis does; name a Redis server as the target"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID) from None

    async def unlink(self, redis: Redis, keys: Sequence[bytes | str]) -> int:
        """Remove keys, on a node of a cluster those of each slot by a command of their own; returns how many."""
        if await _mode(redis) != "cluster":
            return int(await redis.unlink(*keys))
        slots: dict[int, list[bytes | str]] = {}
        for key in keys:
            slots.setdefault(key_slot(key if isinstance(key, bytes) else key.encode()), []).append(key)
        pipeline = redis.pipeline(transaction=False)
        for some in slots.values():
            pipeline.unlink(*some)
        answers = await pipeline.execute(raise_on_error=False)
        removed = sum(int(one) for one in answers if not isinstance(one, Exception))
        refused = next((one for one in answers if isinstance(one, exceptions.RedisError)), None)
        if refused is not None:
            told = translated(refused, _address(self._options())).message
            raise PermanentError(f"{told}; of the last {len(keys)} keys {removed} were removed")
        return removed

    @staticmethod
    async def rights(redis: Redis, commands: Sequence[str]) -> Rights | None:
        """Return this user's rights to the commands; None where the server does not tell them."""
        return await rights(redis, commands)

    async def require_commands(self, redis: Redis, commands: Sequence[str]) -> None:
        """Refuse a server that lacks a command, or a user that may not run it, where that can be told beforehand."""
        told = await rights(redis, commands)
        if told is not None and told.objection:
            raise PermanentError(f"Redis at {_address(self._options())}: {told.objection}", reason=Reason.FORBIDDEN)

    def _options(self) -> dict[str, Any]:
        try:
            options: dict[str, Any] = dict(parse_url(self._url.read()))
        except ValueError:
            msg = "the Redis connection URL cannot be read; write redis://user:password@host:port"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID) from None
        if options.get("db"):
            msg = "the Redis connection URL must not name a database; the target of a remediation does"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID)
        return options | {
            "db": 0,
            "protocol": 2,
            "parser_class": Parser,
            "driver_info": None,  # CLIENT SETINFO would swallow the answer of a server that takes no connection
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
        }


async def _select(client: Redis, number: int, address: str) -> None:
    """Change to a database; any refusal of the server means that it has no database of this number."""
    if number == 0:
        return
    try:
        await client.execute_command("SELECT", number)  # type: ignore[no-untyped-call]
    except exceptions.RedisError as error:
        if code_of(error) != "ERR":
            raise
    else:
        return
    mode = await _mode(client)
    if mode == "sentinel":
        await RedisClient.require_data(client)
    why = "; a node of a cluster has database 0 only" if mode == "cluster" else ""
    raise PermanentError(f"Redis at {address} has no database {number}{why}", reason=Reason.TARGET_NOT_FOUND)


async def _mode(redis: Redis) -> str:
    """The kind of a server: standalone, cluster, sentinel; a fork may say something else, or nothing."""
    return str((await redis.info("server")).get("redis_mode", ""))


def _address(options: Mapping[str, Any]) -> str:
    """Where a server is, without a login."""
    path = options.get("path")
    return str(path) if path else f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


@contextmanager
def _translating(address: str, *, connecting: bool = False) -> Iterator[None]:
    try:
        yield
    except exceptions.RedisError as error:
        raise translated(error, address, connecting=connecting) from None
