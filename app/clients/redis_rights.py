"""Whether a user may run the commands that remediations of a Redis server need, for preflight. Runs none of them."""

from __future__ import annotations

from collections.abc import Sequence

from redis import exceptions
from redis.asyncio import Redis

_MOST_ARGUMENTS = 4  # of the commands that actions use
_DENIED = b"has no permissions to run the"


async def forbidden_commands(redis: Redis, commands: Sequence[str]) -> tuple[str, list[str]] | None:
    """The user's name, and the commands that it may not run; None where the server does not tell this user."""
    try:
        user = _text(await redis.execute_command("ACL WHOAMI"))  # type: ignore[no-untyped-call]
        return user, [name for name in commands if not await _may(redis, user, name)]
    except exceptions.NoPermissionError:
        return None
    except exceptions.ResponseError as error:
        if str(error).lower().startswith("unknown command"):  # before Redis 6 there are no users
            return "default", []
        return None  # before Redis 7 there is no dry run


async def _may(redis: Redis, user: str, command: str) -> bool:
    for count in range(_MOST_ARGUMENTS + 1):
        try:
            answer = await redis.execute_command("ACL DRYRUN", user, command, *["0"] * count)  # type: ignore[no-untyped-call]
        except exceptions.ResponseError as error:
            if isinstance(error, exceptions.NoPermissionError) or "number of arguments" not in str(error):
                raise
            continue
        return _DENIED not in (answer if isinstance(answer, bytes) else str(answer).encode())
    return True  # a command of another form; the server says no when it is used


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
