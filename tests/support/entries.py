"""Catalog entries that act on a web server of the test, or on a Redis database."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from app.backends.connections import Connections
from app.backends.redis.backend import RedisConnection
from app.backends.secrets import SecretSource
from tests.support.engine import remediation
from tests.support.redis import RedisServer
from tests.support.web import WebServer


def request(sink: WebServer, path: str = "/poke", *, timeout: str = "10s", **params: Any) -> dict[str, Any]:
    """A step that sends a PUT, which may be repeated, unless said otherwise."""
    return {
        "action": "http.request",
        "with": {"url": f"{sink.url}{path}", "method": "PUT"} | params,
        "timeout": timeout,
    }


def ok(sink: WebServer, *, timeout: str = "5s") -> dict[str, Any]:
    """A check that a web server answers well."""
    return {"check": "http.ok", "with": {"url": f"{sink.url}/health"}, "timeout": timeout}


def poke(sink: WebServer, **fields: Any) -> dict[str, Any]:
    """A remediation of one request."""
    return remediation(**({"steps": [request(sink)]} | fields))


def flush(database: str = "0", **fields: Any) -> dict[str, Any]:
    """A remediation that empties a Redis database, which need not be repeatable to be sent once."""
    return remediation(
        **(
            {
                "name": "flush",
                "target": {"redis": {"instance": "cache", "database": database}},
                "steps": [{"action": "redis.flush"}],
                "allow_destructive": True,
            }
            | fields
        )
    )


def cache(server: RedisServer) -> Connections:
    """A configuration whose Redis `cache` is this server."""
    url = f"redis://{server.host}:{server.port}"
    return Connections(redis={"cache": RedisConnection(url=SecretSource(value=SecretStr(url)))})


def asked(sink: WebServer, path: str = "/poke") -> int:
    """How often a path was asked for."""
    return sum(one.path == path for one in sink.requests)
