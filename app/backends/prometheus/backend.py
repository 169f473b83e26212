"""Prometheus, or anything that answers its query API; it is asked and never acted on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from app.backends.base import DEFAULT, Backend
from app.backends.headers import Headers, refuse_second_authorization
from app.backends.secrets import SecretSource
from app.domain.findings import Finding
from app.domain.model import Value

if TYPE_CHECKING:
    from app.backends.instances import Clients
    from app.backends.preflight import Asking, Need
    from app.backends.prometheus.client import PrometheusClient


class PrometheusConnection(Value):
    """A Prometheus (or anything that answers its query API)."""

    url: str
    bearer_token: SecretSource | None = None
    headers: Headers = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_authorization(self) -> PrometheusConnection:
        refuse_second_authorization(self.headers, self.bearer_token)
        return self


class PrometheusBackend(Backend["PrometheusClient"]):
    """Answers `prometheus.query`."""

    name = "prometheus"
    title = "Prometheus"
    instances = "Prometheus servers by name; prometheus.query asks the one named default, unless it names another."
    Connection = PrometheusConnection

    async def connect(self, clients: Clients, instance: str) -> PrometheusClient:
        """A client of one server."""
        from app.backends.prometheus.client import PrometheusClient  # noqa: PLC0415

        return PrometheusClient(clients.web(), clients.connections.instance(self, instance))

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:
        """Whether each server that a check asks answers."""
        from app.backends.preflight import Need  # noqa: PLC0415 - it imports all actions

        asked = {spec.with_.get("instance", DEFAULT) for spec in asking.checks if spec.check == "prometheus.query"}
        for instance in sorted(str(one) for one in asked if not asking.is_open(one)):
            subject = "Prometheus" if instance == DEFAULT else f"Prometheus {instance}"

            async def ask(instance: str = instance) -> None:
                await (await self.client(asking.clients, instance)).query("vector(1)")

            yield Need(subject, subject, ask)


BACKEND = PROMETHEUS = PrometheusBackend()
