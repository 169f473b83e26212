"""All clients of one process, made when first needed: a heavy SDK is imported only where the catalog needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from typing import Any

from app.backends.base import Backend
from app.backends.connections import Connections
from app.backends.registry import backends
from app.backends.scope import Scope
from app.backends.web import HttpClient


class Clients:
    """Keeps one client for each instance of each backend, and closes them all at the end."""

    def __init__(self, connections: Connections, scope: Scope) -> None:
        self.connections = connections
        self.scope = scope
        self._stack = AsyncExitStack()
        self._made: dict[tuple[str, str], Any] = {}
        self._making: dict[tuple[str, str], asyncio.Lock] = {}
        self._web: HttpClient | None = None

    async def get(self, backend: Backend[Any], instance: str) -> Any:
        """The client of an instance; raises PermanentError where it is not configured."""
        key = (backend.name, instance)
        if key in self._made:
            return self._made[key]
        async with self._making.setdefault(key, asyncio.Lock()):
            if key not in self._made:
                await backend.load()
                made = await backend.connect(self, instance)
                if hasattr(made, "close"):
                    self._stack.push_async_callback(made.close)
                self._made[key] = made
        return self._made[key]

    def web(self) -> HttpClient:
        """The one client for calls over HTTP, which backends share."""
        if self._web is None:
            self._web = HttpClient(self.connections.timeout)
            self._stack.push_async_callback(self._web.close)
        return self._web

    async def load(self, names: Collection[str]) -> None:
        """Import the modules of these backends, if the configuration lets a run reach them."""
        for name, backend in backends().items():
            if name in names and backend.is_reachable(self.connections, self.scope.of(name)):
                await backend.load()

    async def close(self) -> None:
        """Close every client that was made."""
        await self._stack.aclose()
