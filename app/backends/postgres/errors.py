"""The meaning of a PostgreSQL error: by its SQLSTATE, never by its words, which may be in any language.

While connecting libpq hands over words only; it is then asked once more, for the code.
"""

from __future__ import annotations

import ctypes
import re
import select
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from app.domain.errors import ActionError, PermanentError, TransientError
from app.domain.reasons import Reason

# The longest prefix of a code decides. Without a reason it may pass, and is tried again.
_MEANINGS: Mapping[str, tuple[Reason | None, str]] = {
    "08": (None, ""),  # the connection
    "25006": (Reason.FORBIDDEN, "; it takes no writes (a standby, or read only): name its primary as the target"),
    "28": (Reason.FORBIDDEN, "; correct user and password in the URL, or pg_hba.conf of the server"),
    "3D000": (Reason.TARGET_NOT_FOUND, ""),
    "40": (None, ""),  # lost to another transaction
    "42501": (Reason.FORBIDDEN, ""),
    "53": (None, ""),  # out of connections, memory, disk
    "55P03": (None, ""),  # a lock was not to be had in time
    "57": (None, ""),  # cut off by a time-out or by its administrator, starting up, shutting down
    "58": (None, ""),  # the system below it
    "XX": (None, ""),
    "": (Reason.ACTION_FAILED, ""),
}
# Only for the words that are shown; each of them may pass.
_PHRASES = (
    ("refused", "connection refused"),
    ("resolve host", "its host name cannot be resolved"),
    ("timeout", "timed out"),
)
_VERBOSE = 2  # PQERRORS_VERBOSE: `FATAL:  28P01: words`, in any language
_TOLD = re.compile(r":\s+((?=[0-9A-Z]*[0-9])[0-9A-Z]{5}): ?(.*)")


def refused(error: psycopg.Error, told: tuple[str, str] | None) -> ActionError:
    """Return the meaning of a failed connection; `told` are the server's code and words, if it answered."""
    if told is not None:
        return _meant(*told)
    if error.pgconn is not None and error.pgconn.needs_password:
        msg = "PostgreSQL: the server asks for a password and the URL has none"
        return PermanentError(msg, reason=Reason.FORBIDDEN)
    text = str(error)
    phrase = next((phrase for sign, phrase in _PHRASES if sign in text), "no connection could be made")
    return TransientError(f"cannot connect to PostgreSQL: {phrase}")


def translated(error: psycopg.Error) -> ActionError:
    """Return the meaning of a failed statement."""
    if error.sqlstate is None:
        if isinstance(error, psycopg.OperationalError):
            return TransientError("PostgreSQL: the connection was lost")
        return PermanentError(f"PostgreSQL: {type(error).__name__}")
    return _meant(error.sqlstate, error.diag.message_primary or "")


def _meant(code: str, words: str) -> ActionError:
    sign = max((prefix for prefix in _MEANINGS if code.startswith(prefix)), key=len)
    reason, advice = _MEANINGS[sign]
    message = f"PostgreSQL: {words} ({code}){advice}"
    return TransientError(message) if reason is None else PermanentError(message, reason=reason)


def ask_why(options: Mapping[str, Any], seconds: float) -> tuple[str, str] | None:
    """Connect once more, and return the code and the words of the server's refusal; None where there is none.

    Blocks; to be called in a thread.
    """
    libpq = _libpq()
    if libpq is None:
        return None
    connection = pq.PGconn.connect_start(make_conninfo(**options).encode())
    try:
        libpq.PQsetErrorVerbosity(ctypes.c_void_p(getattr(connection, "pgconn_ptr", None)), _VERBOSE)
        _wait(connection, time.monotonic() + seconds)
        found = _TOLD.search(connection.error_message.decode(errors="replace"))
        return None if found is None else (found[1], found[2].strip())
    finally:
        connection.finish()


def _wait(connection: pq.abc.PGconn, until: float) -> None:
    """Until it is connected or refused, or the time is over."""
    while connection.status != pq.ConnStatus.BAD and time.monotonic() < until:
        state = connection.connect_poll()
        if state in {pq.PollingStatus.OK, pq.PollingStatus.FAILED}:
            return
        socket = [connection.socket]
        reading = state == pq.PollingStatus.READING
        select.select(socket if reading else [], [] if reading else socket, [], max(0.0, until - time.monotonic()))


@cache
def _libpq() -> ctypes.CDLL | None:
    """The library that psycopg works with; its wheels bring one of their own."""
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            path = line.partition("/")[2]
            if Path(path).name.startswith("libpq"):
                return ctypes.CDLL(f"/{path}")
    return None
