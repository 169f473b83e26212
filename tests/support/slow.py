"""A TCP proxy that takes its time with every packet, as a network between two places does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def slowed(host: str, port: int, seconds: float) -> Iterator[int]:
    """Pass everything on `seconds` later in each direction; yields the proxy's port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        proxy = asyncio.run_coroutine_threadsafe(_listen(host, port, seconds), loop).result(10)
        yield proxy.sockets[0].getsockname()[1]
        asyncio.run_coroutine_threadsafe(_end(proxy), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listen(host: str, port: int, seconds: float) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(host, port)
        with suppress(asyncio.CancelledError):  # the test is over
            await asyncio.gather(_pass_on(reader, forth, seconds), _pass_on(back, writer, seconds))

    return await asyncio.start_server(connected, "127.0.0.1", 0)


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seconds: float) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            await asyncio.sleep(seconds)
            sink.write(data)
            await sink.drain()
    sink.close()


async def _end(proxy: asyncio.Server) -> None:
    proxy.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for one in others:
        one.cancel()
    await asyncio.gather(*others, return_exceptions=True)
