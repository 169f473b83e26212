"""The frame of every request: its time is measured, and web pages of other sites cannot change anything.

Only plain ASGI, since it must also see the answers of the framework itself.
"""

from __future__ import annotations

import ipaddress
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import ProblemError, ProblemReason
from app.telemetry.metrics import Metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_UNMATCHED = "unmatched"


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class Measured:
    """Observes the duration of each answered request by route template, never by path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._durations: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = (b"x-content-type-options", b"nosniff"), (b"date", _date(int(time.time())))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if status:
                self._observe(scope, status, time.perf_counter() - started)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        key = (method, route, status)
        if key not in self._durations:
            self._durations[key] = self._metrics.requests.labels(method, route, str(status))
        self._durations[key].observe(seconds)


class SameOrigin:
    """Refuses changes that a browser asks for on behalf of another site, which needs no token where none is set."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["method"] not in _SAFE and _is_foreign(Headers(scope=scope)):
            detail = "a web page of another site may not ask for this"
            await ProblemError(403, ProblemReason.CROSS_ORIGIN, detail).response()(scope, receive, send)
            return
        await self._app(scope, receive, send)


class KnownHost:
    """Where clients need no token, answers only to names of this machine.

    A web page of another site can have its own name point to loopback (DNS rebinding), and is of the same origin then.
    """

    def __init__(self, app: ASGIApp, *, is_open: bool) -> None:
        self._app = app
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and self._is_open and not _is_local(Headers(scope=scope).get("host", "")):
            detail = "without tokens only localhost and loopback addresses are answered; configure auth.tokens"
            await ProblemError(403, ProblemReason.UNKNOWN_HOST, detail).response()(scope, receive, send)
            return
        await self._app(scope, receive, send)


@lru_cache(maxsize=64)
def _is_local(host: str) -> bool:
    """Whether a Host header names this machine; an old client sends none, and is no browser."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_foreign(headers: Headers) -> bool:
    """Browsers send Sec-Fetch-Site, older ones only Origin; everything else sends neither."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc != headers.get("host")
    except ValueError:
        return True
