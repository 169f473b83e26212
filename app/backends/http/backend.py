"""Hosts that are called over HTTP: which may be, and which headers each gets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from app.backends.base import Backend, ScopeBlock, matches
from app.backends.headers import Headers, Query
from app.backends.web import HttpClient, place
from app.domain.findings import Finding
from app.domain.model import JsonObject, Value

if TYPE_CHECKING:
    from app.backends.connections import Connections
    from app.backends.instances import Clients
    from app.backends.preflight import Asking, Need

# host:port, [IPv6]:port, [IPv6] and whatever is a URL; IPv6 itself and patterns of it have colons too.
_NO_HOST = re.compile(r"[^:]*:[0-9]+|\[.*:.*\](:.*)?|.*/.*")
_NAMED = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


def _host(text: str) -> str:
    if _NO_HOST.fullmatch(text):
        raise ValueError(f"{text!r} matches no host; write a host without port, for example shop.example or ::1")
    return text


class HttpConnection(Value):
    """The headers that http.request and http.ok send to one host beside those of a remediation."""

    headers: Headers = Field(default_factory=dict)
    query: Query = Field(default_factory=dict, description="Added to the query of each URL.")


class HttpScope(ScopeBlock):
    """Which hosts a parameter `url` of any step or check may have."""

    hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = Field(
        default=(), description="Hosts that http.request and http.ok may call."
    )

    def host_objection(self, host: str) -> str | None:
        """Say why `host` must not be called, or None."""
        if matches(host, self.hosts):
            return None
        return f"host {host!r} is not in scope; add it to scope.http.hosts and restart"

    def params_objection(self, params: JsonObject) -> str | None:
        """Say why the host of `url` must not be called, or None."""
        if "url" not in params:
            return None
        try:
            host = urlsplit(str(params["url"])).hostname or ""
        except ValueError:
            host = ""
        return self.host_objection(host) if host else "the URL names no host"


class HttpBackend(Backend[HttpClient]):
    """Anything that answers over HTTP."""

    name = "http"
    title = "HTTP"
    instances = "Headers by host: what is sent to each beside what a remediation gives."
    Connection = HttpConnection
    Scope = HttpScope

    def instance_objection(self, name: str) -> str | None:
        """Instances are hosts."""
        if _NAMED.fullmatch(name):
            return None
        return f"{name!r} is no host; write host or host:port in lower case, without scheme and path"

    async def connect(self, clients: Clients, instance: str) -> HttpClient:  # noqa: ARG002 - one for all hosts
        """The client that all calls share."""
        return clients.web()

    async def load(self) -> None:
        """Nothing is left to import."""

    def configured(self, connections: Connections, url: str) -> HttpConnection:
        """Return the entry of `connections.http` for the host of `url`; host:port counts before the host alone."""
        hosts: Mapping[str, HttpConnection] = connections.of(self.name)
        host, port = place(url)
        return hosts.get(f"{host}:{port}") or hosts.get(host) or HttpConnection()

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:
        """Secrets that steps and checks name, and the hosts that they call, as far as no alert fills them in."""
        from app.backends.http.preflight import needs  # noqa: PLC0415 - it imports all actions

        return needs(asking)


BACKEND = HTTP = HttpBackend()
