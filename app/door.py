"""Lets connections in: so many at most, each for as long as it makes progress, and known peers before others.

A process may open only so many files. Without a bound, peers that never finish a request would take them all, and
Alertmanager would be reset. `app.main` gives this to uvicorn, which has no such bounds of its own.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MOST = 1024
_HANDSHAKE_SECONDS = 10.0
_HEADER_SECONDS = 10  # for the headers of a request, however they trickle in
_BODY_SECONDS = 5  # for a body, and one more for each so many bytes that have come
_BYTES_A_SECOND = 16 * 1024
_LOOK_SECONDS = 1.0
_KNOWN = 1024  # addresses that are remembered
_TELL_SECONDS = 60.0
_GRACE_SECONDS = 1.0
log = structlog.get_logger()


class Guest(Protocol):
    """A connection, as the door sees it."""

    @property
    def peer(self) -> str:
        """The address at its other end."""

    @property
    def is_known(self) -> bool:
        """Say whether its peer has shown a token on it, or needs none."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for another request."""

    def end(self) -> None:
        """Give its file back at once."""


def open_files() -> int:
    """How many files this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else _MOST * 8


class Door:
    """Counts connections; where there are too many, the one that is missed least is ended for the new one."""

    def __init__(self, files: int, count: Callable[[str], None] = lambda _reason: None) -> None:
        self.most = max(8, min(_MOST, files // 2))
        self.most_of_one = max(4, self.most // 2)
        self._at_all = max(12, min(_MOST * 3 // 2, files * 3 // 4))  # with those that have just come
        self.backlog = max(16, min(2048, files // 8))  # what waits is accepted at once, and must fit in
        self._count = count
        self._guests: dict[Guest, tuple[str, float]] = {}  # in the order of their arrival: peer and time
        self._known: dict[str, None] = {}
        self._told = -_TELL_SECONDS

    def let_in(self, context: ssl.SSLContext | None, **options: Any) -> asyncio.Protocol:
        """The protocol of a new connection; `options` are those of uvicorn's own class."""
        after = partial(Connection, self, **options)
        return after() if context is None else Handshake(self, context, after)

    def enter(self, guest: Guest) -> None:
        """Take a new connection in, which may end another one; or end it, if every other one is busy and known.

        Each has a moment to show a request, while there are files: among many that come at once is Alertmanager's.
        """
        now = asyncio.get_running_loop().time()
        self._guests[guest] = (guest.peer, now)
        of_peer = [one for one, (peer, _) in self._guests.items() if peer == guest.peer]
        if len(self._guests) > self._at_all:
            self._make_room(guest, [*self._guests], now)
        elif len(self._guests) > self.most:
            self._make_room(guest, [one for one in self._guests if self._is_settled(one, now)], now)
        elif len(of_peer) > self.most_of_one:
            self._make_room(guest, [one for one in of_peer if self._is_settled(one, now)], now)

    def _is_settled(self, guest: Guest, now: float) -> bool:
        return now - self._guests[guest][1] > _GRACE_SECONDS

    def leave(self, guest: Guest) -> None:
        """Forget a connection."""
        self._guests.pop(guest, None)

    def know(self, peer: str) -> None:
        """Remember an address that a token has come from."""
        self._known.pop(peer, None)
        self._known[peer] = None
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]

    def turn_out(self, guest: Guest, reason: str) -> None:
        """End a connection, and count it."""
        self.leave(guest)
        self._count(reason)
        guest.end()

    def _make_room(self, new: Guest, among: list[Guest], now: float) -> None:
        of_peer = Counter(peer for peer, _ in self._guests.values())

        def value(one: Guest) -> tuple[bool, bool, int]:
            peer, _ = self._guests[one]
            return one.is_known, peer in self._known, -of_peer[peer]

        # The first is missed least; among equals it is the one that has been here for longest.
        idle = [one for one in among if one is not new and (one.is_idle or not one.is_known)]
        if not idle and len(self._guests) <= self._at_all:
            return
        if now - self._told >= _TELL_SECONDS:
            self._told = now
            log.warning("too many connections; the oldest without a token are ended", most=self.most)
        self.turn_out(min(idle, key=value, default=new), "crowded")


class Connection(HttpToolsProtocol):
    """One connection of HTTP, which ends where a request does not come in within its time."""

    def __init__(self, door: Door, **options: Any) -> None:
        super().__init__(**options)
        self._door = door
        self._known = False
        self._in_headers = True
        self._in_body = False
        self._received = 0  # bytes of the body
        self._looks = 0
        self._watching: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> str:
        """The address at its other end."""
        return self.client[0] if self.client else ""

    @property
    def is_known(self) -> bool:
        """Whether a request on it has had a token that counts; also while that is still answered."""
        request = self._request
        if not self._known and request is not None and request.scope["state"].get("known"):
            self._known = True
            self._door.know(self.peer)
        return self._known

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, or for the rest of one."""
        return self._in_headers or self._in_body or not self._is_answering

    @property
    def _request(self) -> RequestResponseCycle | None:
        """The latest request; none before the first one, against uvicorn's annotation."""
        return self.cycle

    @property
    def _is_answering(self) -> bool:
        request = self._request
        return request is not None and not request.response_complete

    def end(self) -> None:
        """Give its file back at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the headers."""
        super().connection_made(transport)
        self._watch()
        self._door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self._door.leave(self)
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The first byte between two requests begins the headers of the next one."""
        if self._in_body:
            self._received += len(data)
        else:
            self._in_headers = True
        super().data_received(data)
        if self._in_headers or self._in_body:
            self._watch()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        """Its headers are there; the body may take time again."""
        super().on_headers_complete()
        self._in_headers, self._in_body, self._received, self._looks = False, True, 0, 0

    def on_message_complete(self) -> None:
        """All of it is there."""
        super().on_message_complete()
        self._in_headers = self._in_body = False
        self._stop_watching()

    def on_response_complete(self) -> None:
        """Notice a token, so that its address is known to a later connection."""
        super().on_response_complete()
        self.is_known  # noqa: B018 - remembers it

    def _watch(self) -> None:
        if self._watching is None:
            self._looks = 0
            self._watching = self.loop.call_later(_LOOK_SECONDS, self._look)

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _look(self) -> None:
        """Count the seconds that it was waited for the peer; by looks, since the loop may have stood still."""
        self._watching = None
        if self.transport.is_closing():
            return
        if not self.flow.read_paused and not (self._in_headers and self._is_answering):
            self._looks += 1
        allowed = _BODY_SECONDS + self._received // _BYTES_A_SECOND if self._in_body else _HEADER_SECONDS
        if self._looks >= allowed:
            self._door.turn_out(self, "slow_body" if self._in_body else "slow_headers")
        else:
            self._watching = self.loop.call_later(_LOOK_SECONDS, self._look)


class Handshake(asyncio.Protocol):
    """A connection until its TLS handshake is done: the door sees it from the first moment on."""

    is_known = False
    is_idle = True

    def __init__(self, door: Door, context: ssl.SSLContext, after: Callable[[], Connection]) -> None:
        self._door = door
        self._context = context
        self._after = after
        self._transport: Any = None
        self._early = bytearray()  # bytes from before it was passed on: of TLS, and then of HTTP
        self._shaking: asyncio.Task[None] | None = None
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._transport = transport
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else ""
        self._shaking = asyncio.get_running_loop().create_task(self._shake(), name="handshake")
        self._door.enter(self)

    def data_received(self, data: bytes) -> None:
        """Keep bytes from before the handshake, and bytes that are decrypted before its end is noticed."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give its place back."""
        self._door.leave(self)

    def end(self) -> None:
        """Give its file back at once."""
        self._transport.abort()

    async def _shake(self) -> None:
        try:
            secure = await self._start_tls()
        except (OSError, ssl.SSLError):  # no TLS, no certificate, gone, or too slow
            secure = None
        self._door.leave(self)
        if secure is None or secure.is_closing():
            self._transport.abort()
            return
        connection = self._after()
        secure.set_protocol(connection)
        connection.connection_made(secure)
        if self._early:
            connection.data_received(bytes(self._early))

    async def _start_tls(self) -> asyncio.Transport | None:
        """Hand the connection to TLS, with the bytes so far: uvloop begins to read before this code can stop it."""
        loop = asyncio.get_running_loop()
        self._transport.pause_reading()
        early, self._early = bytes(self._early), bytearray()
        options: dict[str, Any] = {"server_side": True, "ssl_handshake_timeout": _HANDSHAKE_SECONDS}
        starting = loop.create_task(loop.start_tls(self._transport, self, self._context, **options))
        for _ in range(2):  # until it has taken the connection over, and before it reads
            await asyncio.sleep(0)
        tls = self._transport.get_protocol()  # a BufferedProtocol, though uvloop's does not say so
        while early and tls is not self:
            room = memoryview(tls.get_buffer(len(early)))
            size = min(len(room), len(early))
            room[:size] = early[:size]
            tls.buffer_updated(size)
            early = early[size:]
        return await starting
