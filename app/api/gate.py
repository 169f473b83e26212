"""Bounds the cost of all notifications that are being received; a sender beyond them is to come again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.api.problems import RETRY_AFTER_SECONDS, ProblemError, ProblemReason

_BODIES = 4  # of the largest size at once


class Gate:
    """Lets so many requests, and so many announced bytes, in at once."""

    def __init__(self, max_requests: int, max_body_bytes: int) -> None:
        self._max_requests = max_requests
        self._largest = max_body_bytes
        self._max_bytes = _BODIES * max_body_bytes
        self._requests = 0
        self._bytes = 0

    @contextmanager
    def entered(self, content_length: str) -> Iterator[None]:
        """Stay within the bounds, or raise a problem with 503 before anything of the body is read.

        Alertmanager sends again after a 5xx, and drops the notification after a 429.
        """
        announced = int(content_length) if content_length.isascii() and content_length.isdigit() else self._largest
        size = min(announced, self._largest)
        if self._requests >= self._max_requests or self._bytes + size > self._max_bytes:
            detail = "too many notifications at once; send it again"
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            raise ProblemError(503, ProblemReason.BUSY, detail, headers=headers)
        self._requests += 1
        self._bytes += size
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size
