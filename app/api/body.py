"""Reads request bodies: never more than the limit, and only after the sender was let in."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.api.problems import ProblemError, ProblemReason

_LENGTH = re.compile(r"[0-9]{1,18}")


async def read_body(request: Request, limit: int) -> bytes:
    """The body; raises a problem when it is compressed, too large, or ends too early.

    A moderate excess is read and dropped, so that the sender gets the answer instead of a broken connection.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        detail = "the body must not be compressed; send it without Content-Encoding"
        raise ProblemError(415, ProblemReason.UNSUPPORTED_ENCODING, detail)
    announced = request.headers.get("content-length", "")
    size = int(announced) if _LENGTH.fullmatch(announced) else 0
    if size <= 2 * limit:
        try:
            body = await _collect(request, limit)
        except ClientDisconnect as error:
            raise ProblemError(400, ProblemReason.INCOMPLETE_BODY, "the body ended too early") from error
        if body is not None:
            return body
    detail = f"the body is larger than {limit} bytes; raise max_body_bytes or group alerts more finely (group_by)"
    raise ProblemError(413, ProblemReason.TOO_LARGE, detail)


async def _collect(request: Request, limit: int) -> bytes | None:
    """The body, or None when it is larger than `limit`."""
    chunks: list[bytes] = []
    size, more = 0, True
    while more and size <= 2 * limit:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size, more = size + len(chunk), message.get("more_body", False)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
    return b"".join(chunks) if size <= limit else None
