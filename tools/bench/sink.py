"""What actions call: answers everything at once and notes when; `python -m tools.bench.sink PORT`."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

_SEEN: dict[str, float] = {}
_TOTAL = 0


class _Protocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._answer(head.split(b" ", 2)[1].decode(), at)

    def _answer(self, path: str, at: float) -> None:
        global _TOTAL  # noqa: PLW0603 - the process is the server
        if path == "/seen":
            content = json.dumps(_SEEN).encode()
        elif path == "/count":
            content = str(_TOTAL).encode()
        else:
            _TOTAL += 1
            _SEEN.setdefault(path, at)
            content = b"{}"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self._transport.write(head.encode() + content)  # type: ignore[attr-defined]


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Protocol, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
