"""All clients of one process, made when first needed: a heavy SDK is imported only where the catalog needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING

from app.backends.connection import Connections
from app.domain.errors import PermanentError
from app.domain.reasons import Reason
from app.domain.scope import Scope

if TYPE_CHECKING:
    from app.backends.alertmanager.client import AlertmanagerClient
    from app.backends.http.client import HttpClient
    from app.backends.kubernetes.client import KubernetesClient
    from app.backends.notify.client import Notifier
    from app.backends.postgres.client import PostgresClient
    from app.backends.prometheus.client import PrometheusClient
    from app.backends.redis.client import RedisClient


class Clients:
    """Hands out clients by the names that the configuration gives them; closes them all at the end."""

    def __init__(self, connections: Connections, scope: Scope) -> None:
        self.connections = connections
        self.scope = scope
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._kubernetes: KubernetesClient | None = None
        self._http: HttpClient | None = None
        self._alertmanager: AlertmanagerClient | None = None
        self._postgres: dict[str, PostgresClient] = {}
        self._redis: dict[str, RedisClient] = {}

    async def kubernetes(self) -> KubernetesClient:
        """The cluster; raises TransientError when it cannot be reached, PermanentError when it is not configured."""
        async with self._connecting:
            if self._kubernetes is None:
                await _load("kubernetes")
                from app.backends.kubernetes.client import KubernetesClient  # noqa: PLC0415 - 20 MiB, only where needed

                self._kubernetes = await KubernetesClient.connect(self.connections.kubernetes, self.connections.timeout)
                self._stack.push_async_callback(self._kubernetes.close)
        return self._kubernetes

    def postgres(self, instance: str) -> PostgresClient:
        """Return a PostgreSQL server by its configured name."""
        if instance not in self._postgres:
            connection = self.connections.postgres.get(instance)
            if connection is None:
                raise _unknown("postgres", instance, self.connections.postgres)
            from app.backends.postgres.client import PostgresClient  # noqa: PLC0415

            self._postgres[instance] = PostgresClient(connection, self.connections.timeout)
        return self._postgres[instance]

    def redis(self, instance: str) -> RedisClient:
        """Return a Redis server by its configured name."""
        if instance not in self._redis:
            connection = self.connections.redis.get(instance)
            if connection is None:
                raise _unknown("redis", instance, self.connections.redis)
            from app.backends.redis.client import RedisClient  # noqa: PLC0415

            self._redis[instance] = RedisClient(connection, self.connections.timeout)
        return self._redis[instance]

    def http(self) -> HttpClient:
        """Return the client for http.request and http.ok."""
        if self._http is None:
            from app.backends.http.client import HttpClient  # noqa: PLC0415

            self._http = HttpClient(self.connections.secrets, self.connections.timeout, self.connections.http)
            self._stack.push_async_callback(self._http.close)
        return self._http

    def prometheus(self) -> PrometheusClient:
        """Return the Prometheus that prometheus.query asks."""
        from app.backends.prometheus.client import PrometheusClient  # noqa: PLC0415

        if self.connections.prometheus is None:
            msg = "no Prometheus is configured; set connections.prometheus.url"
            raise PermanentError(msg, reason=Reason.CONFIG_INVALID)
        return PrometheusClient(self.http(), self.connections.prometheus)

    def alertmanager(self) -> AlertmanagerClient | None:
        """Return the Alertmanagers that notify us, or None where they are not configured."""
        if self._alertmanager is None and self.connections.alertmanager is not None:
            from app.backends.alertmanager.client import AlertmanagerClient  # noqa: PLC0415

            self._alertmanager = AlertmanagerClient(self.http(), self.connections.alertmanager)
            self._stack.push_async_callback(self._alertmanager.close)
        return self._alertmanager

    def notifier(self, channel: str) -> Notifier:
        """Return a notification channel by its configured name."""
        from app.backends.notify.client import Notifier  # noqa: PLC0415

        configured = self.connections.notify.get(channel)
        if configured is None:
            raise _unknown("notify", channel, self.connections.notify)
        return Notifier(configured, self.connections.timeout)

    async def load(self, backends: Collection[str]) -> None:
        """Import the modules of these backends, if the configuration lets a run reach them."""
        given = {
            "kubernetes": self.scope.namespaces,
            "postgres": self.connections.postgres,
            "redis": self.connections.redis,
        }
        for backend, reachable in given.items():
            if reachable and backend in backends:
                await _load(backend)

    async def close(self) -> None:
        """Close every client that was made."""
        await self._stack.aclose()


async def _load(backend: str) -> None:
    """Import a client's module in a thread, so that everything else goes on."""
    await asyncio.to_thread(import_module, f"app.backends.{backend}.client")


def _unknown(backend: str, name: str, known: Mapping[str, object]) -> PermanentError:
    names = ", ".join(sorted(known)) or "none"
    return PermanentError(f"connections.{backend} has no {name!r} (configured: {names})", reason=Reason.CONFIG_INVALID)
