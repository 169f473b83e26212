"""The core's way to tell people something: a backend that plays the role `MessageBackend`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from app.backends.base import Backend
from app.backends.registry import having
from app.domain.errors import PermanentError
from app.domain.reasons import Reason

if TYPE_CHECKING:
    from app.backends.connections import Connections
    from app.backends.instances import Clients


class Messenger(Protocol):
    """One channel."""

    async def send(self, title: str, body: str, kind: str) -> int:
        """Deliver to every service of the channel and return how many took it."""


class MessageBackend(Backend[Any], ABC):
    """A backend whose instances are the channels over which people are asked and told."""

    @abstractmethod
    async def messenger(self, clients: Clients, channel: str) -> Messenger:
        """A channel by its configured name; raises PermanentError where it is not configured."""


def section() -> str:
    """Where channels are configured, below `connections`."""
    found = having(MessageBackend)  # type: ignore[type-abstract]
    return "" if found is None else found.name


def channels(connections: Connections) -> Collection[str]:
    """The names of all configured channels."""
    return connections.of(section())


async def messenger(clients: Clients, channel: str) -> Messenger:
    """A channel by its configured name; raises PermanentError where it is not configured."""
    found = having(MessageBackend)  # type: ignore[type-abstract]
    if found is None:
        raise PermanentError("no installed backend tells people", reason=Reason.CONFIG_INVALID)
    return await found.messenger(clients, channel)
