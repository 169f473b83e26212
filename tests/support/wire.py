"""A TCP proxy between one replica and its store, which can cut every connection or let all of them stand still."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.cutting import Cutting


class Wire(Cutting):
    """Passes everything on."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers = set[asyncio.StreamWriter]()

    def cut(self) -> None:
        """End every connection that there is, whatever is under way on it."""
        self._loop.call_soon_threadsafe(self._cut)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Pass nothing on meanwhile; nobody is told."""
        self._loop.call_soon_threadsafe(self._passing.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._passing.set)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, requests = await asyncio.open_connection(*self._server)
        except OSError:  # the server is down
            writer.transport.abort()
            return
        ends = {writer, requests}
        self._writers |= ends
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(answers, writer)),
                    asyncio.ensure_future(self._pump(reader, requests)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:  # Python 3.11 logs a connection that is cancelled
            pass
        finally:
            self._writers -= ends
            for each in ends:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while answer := await reader.read(65536):
                await self._passing.wait()
                writer.write(answer)
                await writer.drain()
        writer.close()
