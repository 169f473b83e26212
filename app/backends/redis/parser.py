"""Reads a server's bytes with the SDK, which raises its own errors for unexpected ones."""

from __future__ import annotations

from typing import Any

from redis import exceptions
from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import Redis


class Parser(_AsyncRESP2Parser):
    """The SDK's parser; an error keeps its code where the SDK cannot read the rest, as in `-MOVED x y`."""

    @classmethod
    def parse_error(cls, response: str) -> exceptions.RedisError:
        """The server's error."""
        try:
            error: exceptions.RedisError = super().parse_error(response)  # type: ignore[no-untyped-call]
        except (LookupError, TypeError, ValueError):
            return exceptions.ResponseError(response)
        return error

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: FBT001, FBT002 - the SDK's
        """The next answer; raises InvalidResponse where it is none."""
        try:
            return await super().read_response(disable_decoding=disable_decoding)
        except ValueError as error:
            raise exceptions.InvalidResponse(str(error)) from None


class Client(Redis):
    """The SDK's client; an answer to another question than the one that was asked is none."""

    async def parse_response(self, connection: Any, command_name: str | bytes, **options: Any) -> Any:
        """The answer to a command, as the SDK gives it; raises InvalidResponse."""
        try:
            return await super().parse_response(connection, command_name, **options)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise exceptions.InvalidResponse(str(error)) from None
