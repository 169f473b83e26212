"""A replica that the machine stops at a chosen statement of a transaction, so that its connection stays open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CHILD = """
import asyncio, os, signal, sys
from sqlalchemy import text
from app.store.db.database import Database

async def main(url, statement, lock):
    async with Database(url).write(lock=lock or None) as tx:
        await tx.execute(text(statement))
        os.kill(os.getpid(), signal.SIGSTOP)
        await asyncio.sleep(0)

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def in_transaction(store: str, statement: str, lock: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Freeze another process that has run this statement, under this lock, and has not committed."""
    command = [sys.executable, "-c", _CHILD, store, statement, lock or ""]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_stopped(child)
        yield child
    finally:
        child.kill()
        child.wait()


def wait_stopped(child: subprocess.Popen[bytes]) -> None:
    """Return once the process has stopped; raises ProcessLookupError where it has ended instead."""
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise ProcessLookupError(f"the process to be frozen has ended: {status}")
