"""A TCP proxy before a PostgreSQL server that loses the answer to a commit, which no server does when asked to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Cutting:
    """Passes everything on, but cuts a connection at its commit once it has sent what it is armed with."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self.port = 0
        self.cuts = 0
        self._armed: bytes | None = None
        self._answered = True
        self._at = b"COMMIT"
        self._loop = asyncio.new_event_loop()

    def arm(self, sent: bytes, *, answered: bool = True, at: bytes = b"COMMIT") -> None:
        """Cut the next connection that has sent this, after its COMMIT was done, or before it was passed on."""
        self._armed, self._answered, self._at = sent, answered, at

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(*self._server)
        back = asyncio.create_task(self._pump(answers, writer))
        is_marked = False
        try:
            while request := await reader.read(65536):
                is_marked |= self._armed is not None and self._armed in request
                if is_marked and self._at in request:
                    self._armed, is_marked = None, False
                    back.cancel()
                    await asyncio.wait([back])
                    if self._answered:
                        requests.write(request)
                        await answers.read(65536)  # it was committed
                    self.cuts += 1
                    break
                requests.write(request)
        except (OSError, asyncio.CancelledError):  # Python 3.11 logs a connection that is cancelled
            pass
        finally:
            back.cancel()
            for each in (requests, writer):
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while answer := await reader.read(65536):
                writer.write(answer)
        writer.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen on a free port of loopback."""
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            starting = asyncio.start_server(self._connected, "127.0.0.1", 0)
            listening = asyncio.run_coroutine_threadsafe(_awaited(starting), self._loop).result(10)
            self.port = listening.sockets[0].getsockname()[1]
            yield
            self._loop.call_soon_threadsafe(listening.close)
        finally:
            asyncio.run_coroutine_threadsafe(_end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()


async def _awaited(starting: object) -> asyncio.Server:
    return await starting  # type: ignore[misc,no-any-return]


async def _end() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.1)  # in which the transports are closed
