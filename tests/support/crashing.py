"""The service, made to die like a process whose power is cut, or to stand still: at the n-th call of a named function.

The product has no hook for this; the function is wrapped in the process that is to die, before the service starts:
`python -m tests.support.crashing app.store.db.database.Database.write before 7 kill serve --store ...` (a `Point`).
`kill` is SIGKILL, `freeze` SIGSTOP, from which a test wakes it by SIGCONT. For a function that opens a transaction,
before and after are those of its commit. The crash tests fork such processes from one that has the imports behind it
(`Crashing`).
"""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.support.processes import wait_until

_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


@dataclass(frozen=True)
class Point:
    """Where to die, or to stand still."""

    function: str  # app.store.ledger.runs.move, or app.store.db.database.Database.write
    moment: str  # before | after
    number: int  # which call
    what: str = "kill"  # | freeze

    @property
    def module(self) -> list[str]:
        """What runs the service, `remediator` put before its arguments, with this point in it."""
        words = [self.function, self.moment, str(self.number), self.what]
        return [sys.executable, "-m", "tests.support.crashing", *words]

    def __str__(self) -> str:
        return f"{self.what} {self.moment} call {self.number} of {self.function}"


def install(point: Point) -> None:
    """Wrap the function in this process."""
    owner, name = _owner(point.function)
    original = inspect.getattr_static(owner, name)
    calls = iter(range(1, point.number + 1))

    def die(moment: str) -> None:
        if moment == point.moment and next(calls, None) == point.number:
            os.kill(os.getpid(), _SIGNALS[point.what])

    setattr(owner, name, _wrapped(original, die))


def _owner(path: str) -> tuple[Any, str]:
    """The module or class that has the function, and its name there."""
    before, _, name = path.rpartition(".")
    try:
        return importlib.import_module(before), name
    except ModuleNotFoundError:
        module, _, cls = before.rpartition(".")
        return getattr(importlib.import_module(module), cls), name


def _wrapped(original: Any, die: Callable[[str], None]) -> Any:
    async def call(*args: Any, **given: Any) -> Any:
        die("before")
        answer = await original(*args, **given)
        die("after")
        return answer

    def plain(*args: Any, **given: Any) -> Any:
        die("before")
        answer = original(*args, **given)
        die("after")
        return answer

    @asynccontextmanager
    async def transaction(*args: Any, **given: Any) -> AsyncIterator[Any]:
        async with original(*args, **given) as opened:
            yield opened
            die("before")
        die("after")

    if inspect.iscoroutinefunction(original):
        return call
    return transaction if inspect.isasyncgenfunction(inspect.unwrap(original)) else plain


def serve(point: Point | None, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Be the service; what a forked process runs."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    _run(point, arguments)


def _run(point: Point | None, arguments: Sequence[str]) -> None:
    if point is not None:
        install(point)
    cli = importlib.import_module("app.cli")
    sys.argv = ["remediator", *arguments]
    cli.main()


class Crashing:
    """Forks services from a process that has imported what they need.

    Ask `status`, never the process itself: to start one, multiprocessing looks after all that it has started, and of
    two threads that read how a process ended at the same time one is told 255.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.support.preloaded"])

    def start(
        self, point: Point | None, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> ForkServerProcess:
        """Start one; it ends with the tests at the latest."""
        process = self._context.Process(target=serve, args=(point, arguments, environment, log), daemon=True)
        with self._turn:
            process.start()
        return process

    def status(self, process: ForkServerProcess) -> int | None:
        """How it ended, as `exitcode`; None while it runs."""
        with self._turn:
            return process.exitcode

    def join(self, process: ForkServerProcess, timeout: float = 60) -> int:
        """Wait until it has ended; how it did, as `status`. TimeoutError when it goes on."""
        wait_until(lambda: self.status(process) is not None, timeout, "a service to end")
        code = self.status(process)
        assert code is not None
        return code


def main() -> None:
    """Be the service, with the point that the command line begins with."""
    function, moment, number, what, *rest = sys.argv[1:]
    _run(Point(function, moment, int(number), what), rest)


if __name__ == "__main__":
    main()
