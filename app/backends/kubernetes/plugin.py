"""Credential plugins of a kubeconfig (`user.exec`): run as kubectl runs them, for a token.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes.aio.config import ConfigException
from pydantic import BaseModel, ConfigDict, Field

_RENEWED_BEFORE = timedelta(minutes=5)  # the end of a plugin's token
_NEVER_KEPT = "1970-01-02T00:00:00Z"  # the end of a token whose plugin names none


class Part(BaseModel):
    """A part of a kubeconfig with every field that Kubernetes gives it, each with the type that it has there."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class Variable(Part):
    """One variable of a plugin's environment."""

    name: str
    value: str = ""


class Plugin(Part):
    """The program that gives a credential."""

    api_version: str = Field(alias="apiVersion")
    command: str
    args: list[str] = Field(default_factory=list)
    env: list[Variable] = Field(default_factory=list)
    install_hint: str = Field(default="", alias="installHint")
    interactive_mode: str = Field(default="", alias="interactiveMode")
    provide_cluster_info: bool = Field(default=False, alias="provideClusterInfo")

    def problems(self) -> Iterator[str]:
        """Yield the fields of it that cannot be honoured."""
        if self.interactive_mode == "Always":
            yield "user.exec.interactiveMode: Always needs a person; the plugin must work without one"
        if "/" in self.command and not self.command.startswith("/"):
            yield "user.exec.command must be an absolute path, or a name that is found in PATH"


class Tokens:
    """The newest token of a plugin, which is asked again before it ends."""

    def __init__(self, plugin: Plugin, cluster: Mapping[str, Any]) -> None:
        self._plugin = plugin
        self._cluster = cluster
        self._token = ""
        self._renew_at = datetime.min.replace(tzinfo=UTC)

    async def get(self) -> str:
        """Return a token; raises ConfigException without one, never with the plugin's output, which may be secret."""
        if datetime.now(UTC) < self._renew_at:
            return self._token
        command = self._plugin.command
        try:
            status = await self._ask()
            token, end = status.get("token"), datetime.fromisoformat(status.get("expirationTimestamp") or _NEVER_KEPT)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigException(f"the plugin {command} gave no credentials; run it by hand to see why") from error
        if not isinstance(token, str) or not token.strip():
            raise ConfigException(f"the plugin {command} gave no token; its client certificates are not supported")
        self._token, self._renew_at = token.strip(), end.astimezone(UTC) - _RENEWED_BEFORE
        return self._token

    async def _ask(self) -> Mapping[str, Any]:
        plugin = self._plugin
        spec = {"interactive": False} | ({"cluster": self._cluster} if plugin.provide_cluster_info else {})
        wanted = {"apiVersion": plugin.api_version, "kind": "ExecCredential"}
        own = {one.name: one.value for one in plugin.env}
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.args,
            env={**os.environ, **own, "KUBERNETES_EXEC_INFO": json.dumps(wanted | {"spec": spec})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # so that it is ended with everything that it started
        )
        try:
            printed, _ = await process.communicate()
        finally:
            if process.returncode is None:  # the deadline of the call is over
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        answer = json.loads(printed)
        if process.returncode or {key: answer.get(key) for key in wanted} != wanted:
            raise ValueError(process.returncode)
        status: Mapping[str, Any] = answer["status"]
        return status
