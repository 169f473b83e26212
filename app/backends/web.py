"""HTTP calls, for every backend that speaks HTTP.

Follows no redirect, uses no proxy, and never calls a link-local or cloud metadata address: the name is resolved once,
its addresses are judged, and the connection goes to a judged address (a second resolution could answer differently).
Messages name scheme, host and path, never the user, the query or a header.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode
from urllib.request import getproxies

import httpx
from pydantic import Field

from app.backends.secrets import SecretSource
from app.domain.addresses import is_refused
from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.reasons import Reason
from app.domain.redaction import SECRETS

# At INFO httpx logs each URL with its query.
logging.getLogger("httpx").setLevel(logging.WARNING)

# As proxies see them, too: some decode a quoted slash before they resolve . and .., or leave out what follows a ;
_DOTS = re.compile(r"(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?=[/\\;]|%2f|%5c|%3b|$)", re.IGNORECASE)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BODY_LIMIT = 1024 * 1024
_SHOWN = 200
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


Status = Annotated[int, Field(ge=100, le=999)]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The request; `secret` becomes `Authorization: Bearer`, the configuration adds `own` and `query`."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes = b""
    secret: SecretSource | None = None
    own: Mapping[str, SecretSource] = field(default_factory=dict)
    query: Mapping[str, SecretSource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The answer; the body up to a limit."""

    status: int
    body: bytes
    retry_after: float = 0.0
    content_type: str = ""  # without its parameters, in lower case; empty where the server named none
    date: datetime | None = None  # the server's time, where it told it

    def text(self) -> str:
        """The body as text that any store can keep (PostgreSQL has no NUL)."""
        return self.body.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")

    def shown(self, limit: int) -> str:
        """The first `limit` characters for people, without secrets that the server repeats."""
        return SECRETS.redact_cut(self.text())[:limit]

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return httpx.codes.is_success(self.status)

    def words(self) -> str:
        """Return the server's words for people about a refusal, on one line with a colon before; not a page of HTML."""
        said = " ".join("".join(char if char.isprintable() else " " for char in self.shown(_SHOWN)).split())
        return "" if not said or said.startswith("<") else f": {said}"


class HttpClient:
    """Sends requests, each over a connection of its own: a reused one may be dead, which looks like a lost answer."""

    def __init__(self, timeout: timedelta) -> None:
        self._timeout = timeout.total_seconds()
        self._opening = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close all open connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _open(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:  # to read all certificates of the system takes 50 ms, 300 on a busy machine
                self._client = await asyncio.to_thread(self._make)
        return self._client

    def _make(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=self._timeout,
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
        )

    async def addresses(self, url: str) -> list[str]:
        """Resolve the host of `url`; raises PermanentError when it must not be called."""
        parsed = _parse(url)
        await self._open()  # planning pays for it, not the deadline of a step
        port = parsed.port or {"http": 80, "https": 443}[parsed.scheme]
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                parsed.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM
            )
        except socket.gaierror as error:
            msg = f"the host name of {describe(url)} cannot be resolved"
            if error.errno == socket.EAI_AGAIN:
                raise TransientError(msg) from None
            raise PermanentError(msg, reason=Reason.TARGET_NOT_FOUND) from None
        found = list(dict.fromkeys(str(info[4][0]) for info in infos))
        if refused := [address for address in found if is_refused(address)]:
            msg = f"{describe(url)} is at {refused[0]}: link-local and metadata addresses are never called"
            raise PermanentError(msg, reason=Reason.OUT_OF_SCOPE)
        return found

    async def send(self, request: HttpRequest, limit: int = _BODY_LIMIT) -> HttpResponse:
        """Send once, without a retry of a request that may have arrived.

        Raises TransientError when nothing was sent, OutcomeUnknownError when no answer came.
        """
        where = describe(request.url)
        headers = self._headers(request)
        failure: httpx.TransportError | None = None
        addresses = await self.addresses(request.url)
        client = await self._open()
        for address in addresses:
            try:
                async with asyncio.timeout(2 * self._timeout):
                    return await _send_to(client, address, request, headers, limit)
            except _NOT_SENT as error:
                failure = error  # the next address, if any
            except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):
                msg = f"{request.method} {where} is no valid HTTP request"
                raise PermanentError(msg) from None
            except (httpx.TransportError, TimeoutError):
                msg = f"{request.method} {where} was sent and not answered"
                raise OutcomeUnknownError(msg) from None
        raise _unconnected(where, failure)

    def _headers(self, request: HttpRequest) -> dict[str, str]:
        own = {name.lower() for name in request.own}
        given = {"User-Agent": "remediator", "Accept-Encoding": "identity", **request.headers}
        headers = {name: value for name, value in given.items() if name.lower() not in own}
        headers |= {name: source.header(name) for name, source in request.own.items()}
        if request.secret is not None:
            if "authorization" in own:
                message = "Authorization is given twice: by bearer_token, and by a header of the connection"
                raise PermanentError(message, reason=Reason.CONFIG_INVALID)
            headers["Authorization"] = f"Bearer {request.secret.header('Authorization')}"
        return headers


async def _send_to(
    client: httpx.AsyncClient, address: str, request: HttpRequest, headers: Mapping[str, str], limit: int
) -> HttpResponse:
    url = _with_query(_parse(request.url), request.query)
    prepared = client.build_request(
        request.method,
        url.copy_with(host=address),
        content=request.content or None,
        headers={**headers, "Host": url.netloc.decode("ascii")},
        extensions={"sni_hostname": url.raw_host.decode("ascii")},
    )
    response = await client.send(prepared, stream=True)
    try:
        body = await _read(response, limit)
    finally:
        await response.aclose()
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    wait, date = _seconds(response.headers.get("Retry-After", "")), _date(response.headers.get("Date", ""))
    return HttpResponse(response.status_code, body, wait, kind, date)


def _with_query(url: httpx.URL, query: Mapping[str, SecretSource]) -> httpx.URL:
    """Return the URL with these parameters added; its own ones stay as written."""
    if not query:
        return url
    if twice := query.keys() & url.params.keys():
        message = f"the query parameter {min(twice)!r} is given twice: by the URL and by connections.http"
        raise PermanentError(message, reason=Reason.CONFIG_INVALID)
    added = urlencode({name: source.read(f"query parameter {name}").strip() for name, source in query.items()})
    return url.copy_with(query=b"&".join(part for part in (url.query, added.encode("ascii")) if part))


def refusal(where: str, response: HttpResponse) -> PermanentError | TransientError:
    """Return the meaning of a failed answer of an API, by its status and never by its words."""
    status = response.status
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        message = f"{where} did not accept the credentials ({status}){response.words()}"
        return PermanentError(message, reason=Reason.FORBIDDEN)
    message = f"{where} answered {status}{response.words()}"
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientError(message, retry_after=response.retry_after)
    hint = "; no such API is at this address" if status == HTTPStatus.NOT_FOUND else ""
    if httpx.codes.is_redirect(status):
        hint = "; redirects are not followed, so the address must be the final one"
    return PermanentError(message + hint, reason=Reason.CONFIG_INVALID)


def place(url: str) -> tuple[str, int]:
    """Host and port of a URL, the host as it stands there: an IPv6 address in brackets."""
    parsed = _parse(url)
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return host, parsed.port or {"http": 80, "https": 443}[parsed.scheme]


def describe(url: str) -> str:
    """A URL for messages: without user, password, query and fragment."""
    parsed = _parse(url)
    port = f":{parsed.port}" if parsed.port else ""
    path = parsed.raw_path.partition(b"?")[0].decode("ascii")  # as it is sent: a quoted ? or # is part of it
    return f"{parsed.scheme}://{parsed.host}{port}{path}"


@lru_cache(maxsize=256)  # a request looks at its URL in several places
def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        msg = "the URL cannot be read"
        raise PermanentError(msg, reason=Reason.CONFIG_INVALID) from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        msg = "the URL must be http:// or https:// with a host and without a user or password"
        raise PermanentError(msg, reason=Reason.CONFIG_INVALID)
    if _DOTS.search(re.split(r"[?#]", url, maxsplit=1)[0]):
        # They would be resolved before it is sent: a label in the path could choose another one.
        raise PermanentError("the path of the URL has a segment . or ..", reason=Reason.TEMPLATE_FAILED)
    return parsed


def _unconnected(where: str, failure: httpx.TransportError | None) -> PermanentError | TransientError:
    why = ""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return PermanentError(f"{where}: certificate not accepted: {cause.verify_message}")
        why = _why(cause) or why
        cause = cause.__cause__ or cause.__context__
    scheme = where.partition(":")[0]
    proxy = f" (the proxy of {scheme.upper()}_PROXY is not used)" if scheme in getproxies() else ""
    if isinstance(failure, httpx.ConnectError):
        return TransientError(f"cannot connect to {where}{': ' if why else ''}{why}{proxy}")
    return TransientError(f"connecting to {where} timed out{proxy}")


def _why(cause: BaseException) -> str:
    """Return the system's words, such as `connection refused`; never the text of an error, which may hold anything."""
    if isinstance(cause, ssl.SSLError):
        return f"no TLS connection: {str(cause.reason).replace('_', ' ').lower()}"
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno).lower()
    return ""


async def _read(response: httpx.Response, limit: int) -> bytes:
    """Return the body up to `limit`; a lost part of it does not make the status unknown."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) >= limit:
                break
    except (httpx.TransportError, httpx.DecodingError):
        pass
    return bytes(body[:limit])


def _seconds(text: str) -> float:
    return float(text[:9]) if text.isascii() and text.isdigit() else 0.0


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
