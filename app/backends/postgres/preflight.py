"""The questions of preflight to a PostgreSQL server: whether the login works, and has the necessary roles."""

from __future__ import annotations

from collections.abc import Iterator

from app.backends.postgres.backend import POSTGRES, PostgresTarget
from app.backends.postgres.rights import missing_roles
from app.backends.preflight import DENIED, Asking, Need, cannot
from app.domain.findings import Finding


def needs(asking: Asking, target: PostgresTarget) -> Iterator[Need | Finding]:
    """One question for each database that the target may mean."""
    subject = "the target in PostgreSQL"
    known = asking.clients.connections.of(POSTGRES.name)
    patterns = asking.scope.of(POSTGRES.name).databases
    places = asking.places((target.instance, target.database), patterns, known)
    if not places:
        yield cannot(subject, f"scope.postgres.databases names none that is configured; {DENIED}")
    roles = tuple(one.resource for one in asking.permissions(POSTGRES.name))
    for instance, database in places:
        yield _login(asking, instance, database, roles)


def _login(asking: Asking, instance: str, database: str | None, roles: tuple[str, ...]) -> Need:
    subject = f"PostgreSQL {instance}" + (f"/{database}" if database else "")
    needed = f" as member of {', '.join(roles)}" if roles else ""

    async def ask() -> Finding | None:
        client = await POSTGRES.client(asking.clients, instance)
        resolved = client.resolve(instance, database)
        objection = asking.scope.objection(resolved)
        if objection is not None:
            return cannot(subject, f"{objection}; {DENIED}")
        login, missing = await missing_roles(client, resolved.name, roles)
        if not missing:
            return None
        grant = f"GRANT {', '.join(missing)} TO {login}"
        return cannot(subject, f"login {login} is no member of {', '.join(missing)}; {grant}")

    return Need(f"{subject}{needed}", subject, ask)
