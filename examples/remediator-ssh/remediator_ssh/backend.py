"""Hosts that commands run on: what the registry finds. It is imported at every start, so asyncssh is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from app.backends.base import INSTANCE, Backend, ScopeBlock, TargetKind, matches
from app.backends.secrets import SecretSource
from app.domain.findings import Finding
from app.domain.model import Value
from app.domain.plans import Target
from app.domain.remediation import Template

if TYPE_CHECKING:
    from app.backends.instances import Clients
    from app.backends.preflight import Asking, Need
    from remediator_ssh.client import SshClient

_LONGEST = 63


class SshConnection(Value):
    """One host, and how to log in there."""

    address: str = Field(description="Host name or address.")
    port: int = Field(default=22, ge=1, le=65535)
    user: str = Field(description="Who logs in.")
    key: SecretSource = Field(description="The private key, without a passphrase.")
    host_keys: tuple[str, ...] = Field(min_length=1, description="The host's public keys; it must show one of them.")


class SshTarget(Value):
    """A host of connections.ssh."""

    host: Template


class SshScope(ScopeBlock):
    """Which hosts may be acted on."""

    hosts: tuple[str, ...] = Field(default=(), description="Hosts, by their names in connections.ssh.")

    def objection(self, target: Target) -> str | None:
        """By its name."""
        if matches(target.name, self.hosts):
            return None
        return f"ssh target {target.name!r} is not in scope; add it to scope.ssh.hosts and restart"


class SshTargets(TargetKind):
    """Hosts; a target's key is `ssh:<host>`."""

    Fields = SshTarget
    instance_field = "host"
    example = "ssh:web-1"

    def field_objection(self, field: str, value: str) -> str | None:  # noqa: ARG002 - there is one
        """A host is named as connections are."""
        fits = len(value) <= _LONGEST and INSTANCE.fullmatch(value) is not None
        return None if fits else f'"{value[: _LONGEST + 1]}" cannot be the name of a connection'

    def known(self, fields: Mapping[str, Any]) -> Target | None:
        """A host that is spelled out."""
        host = fields.get("host")
        return None if host is None else _target(host)

    async def claim(self, clients: Clients, fields: SshTarget) -> Target:
        """The host of the fields, which must be configured."""
        clients.connections.instance(SSH, fields.host)
        return _target(fields.host)

    def key_objection(self, rest: str) -> str | None:
        """A name."""
        return self.field_objection("host", rest)


def _target(host: str) -> Target:
    return Target(backend="ssh", key=f"ssh:{host}", kind="host", name=host)


class SshBackend(Backend["SshClient"]):
    """Commands on hosts."""

    name = "ssh"
    title = "SSH"
    instances = "Hosts by name."
    Connection = SshConnection
    Scope = SshScope
    target = SshTargets()

    async def connect(self, clients: Clients, instance: str) -> SshClient:
        """A client of one host; it connects for each command."""
        from remediator_ssh.client import SshClient  # noqa: PLC0415 - only where it is needed

        return SshClient(clients.connections.instance(self, instance), clients.connections.timeout)

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:
        """Whether each host lets us in and shows a pinned key; runs nothing there."""
        from app.backends.preflight import Need  # noqa: PLC0415 - it imports all actions

        fields = asking.target(self.name)
        if fields is None or asking.is_open(fields["host"]):
            return
        host = str(fields["host"])

        async def ask() -> None:
            await (await self.client(asking.clients, host)).log_in()

        yield Need(f"ssh {host}", f"host {host}", ask)


BACKEND = SSH = SshBackend()
