"""Starts child processes of the test bed, waits until they are ready and ends them by handle.

Every server of this package is a `Process`. Each has a log file, which `conftest.py` shows when a test fails.
Nothing here ends a process by name, and nothing waits for a fixed time.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import httpx

T = TypeVar("T")

POLL_SECONDS = 0.02
LOG_TAIL_LINES = 60
_PORTS = range(12_000, 32_000)
_untried = iter(random.SystemRandom().sample(_PORTS, len(_PORTS)))


class BedError(AssertionError):
    """A server of the test bed did not do what the test relies on."""


class Process:
    """One child process with its own log file and process group."""

    live: list[Process] = []  # noqa: RUF012 - the processes of this interpreter are one set

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                start_new_session=True,
            )
        Process.live.append(self)

    @property
    def pid(self) -> int:
        """The process's id, which is also the id of its group."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, None while the process runs; negative is the signal that ended it."""
        return self._popen.poll()

    def wait_ready(self, is_ready: Callable[[], bool], timeout: float = 60) -> None:
        """Wait until the server answers; what it logged is part of the error when it ends or does not answer."""

        def ready() -> bool:
            if self.returncode is not None:
                raise BedError(f"{self.name} ended with status {self.returncode}; its log ends:\n{self.tail()}")
            return is_ready()

        try:
            wait_until(ready, timeout, f"{self.name} to be ready")
        except TimeoutError as error:
            raise BedError(f"{error}; its log ends:\n{self.tail()}") from error

    def wait(self, timeout: float = 30) -> int:
        """Wait until the process has ended; its exit status."""
        return self._popen.wait(timeout)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, unless it has ended."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End the whole group at once, as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self, timeout: float = 10) -> None:
        """Ask the group to end, and kill it when it does not; safe to call again."""
        try:
            self._end(self._stop_signal, timeout)
        except subprocess.TimeoutExpired:
            self._end(signal.SIGKILL)

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _end(self, number: signal.Signals, timeout: float = 10) -> None:
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, number)
            self._popen.wait(timeout)
        if self in Process.live:
            Process.live.remove(self)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on.

    None that the system gives to whoever calls somebody: it would be gone when a server is started there again. None
    twice: whoever was given it may not listen yet, or be about to be started again.
    """
    for port in _untried:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("every port is taken")


def wait_until(predicate: Callable[[], T], timeout: float, message: str, every: float = POLL_SECONDS) -> T:
    """The first true answer of a predicate; TimeoutError says what was waited for and the last answer.

    `every` is the pause between two questions, longer where asking costs what is asked about.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {message}; last seen: {answer!r}")
        time.sleep(every)


def stays(look: Callable[[], T], expected: T, seconds: float) -> None:
    """Look again and again whether nothing has changed: that nothing happens is the one thing without a condition."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert expected == look()
        time.sleep(POLL_SECONDS)


def answers(client: httpx.Client, path: str) -> bool:
    """Whether a GET is answered with a 2xx; a refused connection is a no."""
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False
