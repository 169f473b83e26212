"""Whether a server has the commands that remediations need, and a user may run them. Runs none of them.

A server that does not know a command has it renamed or disabled (`rename-command`), or is a fork that never had it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis import exceptions
from redis.asyncio import Redis

from app.backends.redis.errors import code_of

_MOST_ARGUMENTS = 4  # of the commands that actions use
_KEY = "remediator-preflight"  # a key that no rule names: which of command and key is refused shows by the name told
_FIRST_WITH_USERS = 6


@dataclass(frozen=True, slots=True)
class Rights:
    """The findings about a user of a server."""

    user: str
    missing: tuple[str, ...] = ()  # the server does not know them
    forbidden: tuple[str, ...] = ()  # the user may not run them

    @property
    def objection(self) -> str:
        """Return the obstacles to running all of them, and the remedy; empty if there is none."""
        if self.missing:
            names = ", ".join(self.missing)
            return f"the server does not know {names}: renamed or disabled there (rename-command), for every user"
        if self.forbidden:
            rules = " ".join(f"+{name}" for name in self.forbidden)
            return f"user {self.user} may not run {', '.join(self.forbidden)}; ACL SETUSER {self.user} {rules}"
        return ""


async def rights(redis: Redis, commands: Sequence[str]) -> Rights | None:
    """Return this user's rights; None where the server does not tell them."""
    missing = await _unknown(redis, commands)
    if missing:
        return Rights("", missing=tuple(missing))
    try:
        user = _text(await redis.execute_command("ACL WHOAMI"))  # type: ignore[no-untyped-call]
    except exceptions.RedisError as error:
        if code_of(error) is None:
            raise
        # Before Redis 6 there are no users, and every login may run everything.
        return Rights("default") if missing is not None and await _is_older(redis) else None
    try:
        found = {name: await _may(redis, user, name) for name in commands}
    except exceptions.RedisError as error:
        if code_of(error) is None:
            raise
        return None  # before Redis 7 there is no dry run
    absent = tuple(name for name, may in found.items() if may is None)
    return Rights(user, absent, tuple(name for name, may in found.items() if may is False))


async def _unknown(redis: Redis, commands: Sequence[str]) -> list[str] | None:
    """The commands that the server does not have; None where it does not tell."""
    try:
        told = await redis.execute_command("COMMAND INFO", *commands)  # type: ignore[no-untyped-call]
    except exceptions.RedisError as error:
        if code_of(error) is None:
            raise
        return None
    if not isinstance(told, list) or len(told) != len(commands):
        return None
    return [name for name, known in zip(commands, told, strict=True) if not known]


async def _may(redis: Redis, user: str, command: str) -> bool | None:
    """Whether a user may run a command; None where the server has no such command."""
    for count in range(_MOST_ARGUMENTS + 1):
        try:
            answer = await redis.execute_command("ACL DRYRUN", user, command, *[_KEY] * count)  # type: ignore[no-untyped-call]
        except exceptions.RedisError as error:
            if code_of(error) != "ERR":
                raise
            continue  # not with so many arguments
        told = _text(answer)
        return told == "OK" or f"'{_KEY}'" in told
    return None


async def _is_older(redis: Redis) -> bool:
    """Whether this server is of a time when Redis had no users."""
    first = str((await redis.info("server")).get("redis_version", "")).partition(".")[0]
    return first.isdigit() and int(first) < _FIRST_WITH_USERS


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
