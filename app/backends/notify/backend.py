"""Channels over which people are asked and told; each delivers to the services of its Apprise URLs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from app.backends.messengers import MessageBackend
from app.backends.secrets import SecretSource
from app.domain.findings import Finding
from app.domain.model import Value
from app.domain.remediation import Mode

if TYPE_CHECKING:
    from app.backends.instances import Clients
    from app.backends.notify.client import Notifier
    from app.backends.preflight import Asking, Need


class NotifyChannel(Value):
    """Where notify.send delivers: Apprise URLs, which hold secrets."""

    urls: tuple[SecretSource, ...] = Field(min_length=1)


class NotifyBackend(MessageBackend):
    """Some hundred notification services."""

    name = "notify"
    title = "notifications"
    instances = "Channels by name, each with a list of Apprise URLs."
    Connection = NotifyChannel

    def instance_objection(self, name: str) -> str | None:  # noqa: ARG002 - people name channels as they like
        """Any name will do."""
        return None

    async def connect(self, clients: Clients, instance: str) -> Notifier:
        """One channel."""
        from app.backends.notify.client import Notifier  # noqa: PLC0415

        return Notifier(clients.connections.instance(self, instance), clients.connections.timeout)

    async def messenger(self, clients: Clients, channel: str) -> Notifier:
        """One channel, for the messages of the engine itself."""
        return await self.channel(clients, channel)

    async def channel(self, clients: Clients, name: str) -> Notifier:
        """One channel by its configured name; raises PermanentError where it is not configured."""
        found: Notifier = await self.client(clients, name)
        return found

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:
        """Whether each channel that is asked or told could be used; sends nothing."""
        from app.backends.preflight import Need  # noqa: PLC0415 - it imports all actions

        remediation = asking.remediation
        told = {*asking.named(self.name), remediation.channel}
        if remediation.mode is Mode.APPROVE and remediation.channel is None:
            told.add(asking.channel)
        for channel in sorted(one for one in told if one and not asking.is_open(one)):

            async def ask(channel: str = channel) -> None:
                await (await self.channel(asking.clients, channel)).verify()

            yield Need(f"channel {channel}", f"channel {channel}", ask)


BACKEND = NOTIFY = NotifyBackend()
