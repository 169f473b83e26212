"""The questions of preflight to a Redis server: whether the login works, and the user may run the commands."""

from __future__ import annotations

from collections.abc import Iterator

from app.backends.preflight import DENIED, Asking, Need, Place, cannot, unknown
from app.backends.redis.backend import REDIS, RedisTarget
from app.domain.findings import Finding

_UNTOLD = "the server does not tell this user what it may run; ACL SETUSER … +acl|whoami +acl|dryrun (Redis 7 or later)"


def needs(asking: Asking, target: RedisTarget) -> Iterator[Need | Finding]:
    """One question for each database that the target may mean."""
    subject = "the target in Redis"
    known = asking.clients.connections.of(REDIS.name)
    places = asking.places((target.instance, target.database), asking.scope.of(REDIS.name).databases, known)
    if not places:
        yield cannot(subject, f"scope.redis.databases names none that is configured; {DENIED}")
    commands = tuple(dict.fromkeys(one.resource for one in asking.permissions(REDIS.name)))
    for place in places:
        yield _user(asking, place, commands)


def _user(asking: Asking, place: Place, commands: tuple[str, ...]) -> Need:
    instance, database = place
    subject = f"Redis {instance}" + (f"/{database}" if database else "")
    writes = asking.acts_on(REDIS.name)

    async def ask() -> Finding | None:
        client = await REDIS.client(asking.clients, instance)
        resolved = client.resolve(instance, int(database or 0))
        objection = asking.scope.objection(resolved) if database else None
        if objection is not None:
            return cannot(subject, f"{objection}; {DENIED}")
        async with client.database(int(resolved.name)) as redis:
            told = await client.rights(redis, commands)
            if told is None or not told.forbidden:
                await client.require_data(redis)
            if told is None:
                return unknown(subject, _UNTOLD)
            if told.objection:
                return cannot(subject, told.objection)
            if writes:
                await client.require_primary(redis)
        return None

    return Need(f"{subject} {commands} {writes}", subject, ask)
