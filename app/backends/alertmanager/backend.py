"""The Alertmanagers that send notifications here: asked whether an alert is fresh, and for missed alerts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from app.backends.headers import BasicAuth, Headers, refuse_second_authorization
from app.backends.secrets import SecretSource
from app.backends.sources import AlertBackend, AlertSource, Sources
from app.domain.findings import Finding
from app.domain.model import Value
from app.domain.remediation import Switchable

if TYPE_CHECKING:
    from app.backends.alertmanager.client import AlertmanagerClient
    from app.backends.instances import Clients
    from app.backends.preflight import Asking, Need

_NO_ALERT = "RemediatorPreflight"  # asked for by name, so that the answer is small


class AlertmanagerConnection(Value):
    """Every Alertmanager of one cluster that sends its notifications here, each by its own address."""

    urls: tuple[str, ...] = Field(min_length=1)
    receivers: tuple[str, ...] = Field(
        default=(), description="Receivers that lead here; default: those that recent notifications name."
    )
    bearer_token: SecretSource | None = None
    basic: BasicAuth | None = None
    headers: Headers = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way_in(self) -> AlertmanagerConnection:
        if self.bearer_token is not None and self.basic is not None:
            msg = "only one of bearer_token and basic may be given"
            raise ValueError(msg)
        refuse_second_authorization(self.headers, self.bearer_token or self.basic)
        return self


class AlertmanagerBackend(AlertBackend):
    """Holds the alerts that notifications are about."""

    name = "alertmanager"
    title = "Alertmanager"
    prefix = "alert"
    instances = "Clusters of Alertmanagers by name (one cluster: default): all that send notifications here."
    Connection = AlertmanagerConnection

    async def connect(self, clients: Clients, instance: str) -> AlertmanagerClient:
        """All members of one cluster."""
        from app.backends.alertmanager.client import AlertmanagerClient  # noqa: PLC0415

        return AlertmanagerClient(clients.web(), clients.connections.instance(self, instance))

    async def source(self, clients: Clients) -> AlertSource | None:
        """All members of all clusters; None where none is configured."""
        names = sorted(clients.connections.of(self.name))
        found: list[AlertmanagerClient] = await asyncio.gather(*(self.client(clients, name) for name in names))
        if len(found) < 2:  # noqa: PLR2004 - nothing to put together
            return found[0] if found else None
        return Sources(found)

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:
        """Without any answer of a cluster no run would begin."""
        from app.backends.preflight import Need, cannot  # noqa: PLC0415 - it imports all actions

        if Switchable.FRESH in asking.remediation.without_guards:
            return
        known = asking.clients.connections.of(self.name)
        for name in sorted(known):
            subject = "Alertmanager" if len(known) == 1 else f"Alertmanager {name}"

            async def ask(name: str = name, subject: str = subject) -> Finding | None:
                client: AlertmanagerClient = await self.client(asking.clients, name)
                answers = await client.of_name(_NO_ALERT)
                return None if answers.groups else cannot(subject, "; ".join(answers.missing))

            yield Need(subject, subject, ask)


BACKEND = ALERTMANAGER = AlertmanagerBackend()
