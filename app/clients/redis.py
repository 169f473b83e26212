"""Redis servers, for the actions and checks on redis targets.

One connection per use, so that a rotated secret file is honoured. The SDK's own retries are off: it would send a
FLUSHDB again whose answer was lost. Errors leave as those of app.domain.errors and never carry the connection URL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.clients.connections import RedisConnection
from app.clients.redis_rights import forbidden_commands
from app.domain.errors import ActionError, OutcomeUnknownError, PermanentError, TransientError
from app.domain.plans import Target
from app.domain.reasons import Reason

_FORBIDDEN = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_LOST = (exceptions.ConnectionError, exceptions.TimeoutError)


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

        Wrap what has an effect in `sent_once`.
        """
        pool = ConnectionPool(**self._options(number))
        client = Redis(connection_pool=pool, single_connection_client=True)
        try:
            with _translating():
                await client.initialize()
                yield client
        finally:
            await client.aclose()
            await pool.disconnect()

    @staticmethod
    @contextmanager
    def sent_once(command: str) -> Iterator[None]:
        """Around a command that must not be sent twice: when its answer is lost, nobody knows what it did."""
        try:
            yield
        except (*_FORBIDDEN, exceptions.BusyLoadingError) as error:  # subclasses of ConnectionError, but answers
            raise _translated(error) from None
        except _LOST:
            msg = f"the connection to Redis was lost before {command} was answered"
            raise OutcomeUnknownError(msg) from None

    @staticmethod
    async def require_primary(redis: Redis) -> None:
        """Refuse a replica: a write would be rejected, or make it differ from its primary until the next full sync."""
        replication = await redis.info("replication")
        if replication["role"] != "master":
            msg = "this Redis is a replica; name its primary as the target"
            raise PermanentError(msg, reason=Reason.FORBIDDEN)

    @staticmethod
    async def forbidden_commands(redis: Redis, commands: Sequence[str]) -> tuple[str, list[str]] | None:
        """The user's name, and the commands that it may not run; None where the server does not tell this user."""
        return await forbidden_commands(redis, commands)

    def _options(self, number: int) -> dict[str, Any]:
        try:
            options: dict[str, Any] = dict(parse_url(self._url.read()))
        except ValueError:
            msg = "the Redis connection URL cannot be read; write redis://user:password@host:port"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID) from None
        if options.get("db"):
            msg = "the Redis connection URL must not name a database; the target of a remediation does"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID)
        return options | {
            "db": number,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
        }


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except exceptions.RedisError as error:
        raise _translated(error) from None


def _translated(error: exceptions.RedisError) -> ActionError:
    if isinstance(error, _FORBIDDEN):
        return PermanentError(f"Redis: {error}", reason=Reason.FORBIDDEN)
    if isinstance(error, exceptions.BusyLoadingError):
        return TransientError("Redis is loading its data set")
    if isinstance(error, exceptions.TimeoutError):
        return TransientError("Redis gave no answer in time")
    if isinstance(error, exceptions.ConnectionError):
        return TransientError("cannot connect to Redis, or the connection was lost")
    if "DB index is out of range" in str(error):
        return PermanentError("Redis has no database of this number", reason=Reason.TARGET_NOT_FOUND)
    return PermanentError(f"Redis: {error}")
