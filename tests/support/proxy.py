"""A TCP proxy before a Redis server that loses an answer, which no server does when asked to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.redis import RedisServer


@contextmanager
def forgetful(server: RedisServer, command: bytes) -> Iterator[int]:
    """Pass everything on, but cut the connection once `command` was answered; yields the proxy's port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        proxy = asyncio.run_coroutine_threadsafe(_listen(server, command), loop).result(10)
        yield proxy.sockets[0].getsockname()[1]
        asyncio.run_coroutine_threadsafe(_end(proxy), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listen(server: RedisServer, command: bytes) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(server.host, server.port)
        while request := await reader.read(65536):
            requests.write(request)
            answer = await answers.read(65536)
            if command in request:
                break
            writer.write(answer)
        for each in (requests, writer):
            each.close()
            await each.wait_closed()

    return await asyncio.start_server(connected, "127.0.0.1", 0)


async def _end(proxy: asyncio.Server) -> None:
    proxy.close()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
