"""Configurations of a Redis instance named `cache`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import SecretStr

from app.backends.connections import Connections
from app.backends.redis.backend import RedisConnection
from app.backends.secrets import SecretSource
from tests.support.redis import RedisServer


def to_redis(server: RedisServer, user: str = "", *, port: int | None = None, **settings: str) -> Connections:
    """A configuration of `server`, by default without a login; the password of every user is `correct-horse`."""
    login = f"{user}:correct-horse@" if user else ""
    url = f"redis://{login}{server.host}:{port or server.port}"
    connection = RedisConnection(url=SecretSource(value=SecretStr(url)))
    return Connections.model_validate({"redis": {"cache": connection}, "timeout": "5s", **settings})


@pytest.fixture
def configured() -> Callable[..., Connections]:
    """Makes a configuration of a server: `configured(server, "user", timeout="1s")`."""
    return to_redis
