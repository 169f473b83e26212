"""The questions of preflight about the hosts that a remediation calls, and the secrets that it sends."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from app.backends.preflight import DENIED, Asking, Need, cannot
from app.domain.findings import Finding


def needs(asking: Asking) -> Iterator[Need | Finding]:
    """Secrets first, then hosts."""
    for name in asking.named("secrets"):
        yield _secret(asking, name)
    for origin in sorted({_origin(asking, spec.with_.get("url")) for spec in asking.specs} - {""}):
        yield _host(asking, origin)


def _secret(asking: Asking, name: str) -> Need:
    async def ask() -> Finding | None:
        empty = not asking.clients.connections.secret(name).read().strip()
        return cannot(f"secret {name}", "it is empty") if empty else None

    return Need(f"secret {name}", f"secret {name}", ask)


def _host(asking: Asking, origin: str) -> Need | Finding:
    """Resolve the name without a connection: the host of a remediation may well be down now."""
    host = urlsplit(origin).hostname or ""
    objection = asking.scope.params_objection({"url": origin})
    if objection is not None:
        return cannot(f"host {host}", f"{objection}; {DENIED}")

    async def ask() -> None:
        await asking.clients.web().addresses(origin)

    return Need(f"host {host}", f"host {host}", ask)


def _origin(asking: Asking, url: object) -> str:
    """Scheme and authority of a URL, or nothing where an alert fills them in."""
    scheme, _, rest = str(url or "").partition("://")
    authority = rest.partition("/")[0]
    return "" if not authority or asking.is_open(f"{scheme}{authority}") else f"{scheme}://{authority}/"
