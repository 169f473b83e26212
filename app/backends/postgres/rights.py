"""Whether a login has the rights that remediations of a PostgreSQL server need, for preflight. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.backends.postgres.client import PostgresClient

_LOOK = """
SELECT current_user::text AS login, needed.role,
       CASE WHEN to_regrole(needed.role) IS NULL THEN false ELSE pg_has_role(needed.role, 'USAGE') END AS held
FROM unnest(%(roles)s::text[]) AS needed(role)
"""


async def missing_roles(client: PostgresClient, database: str, roles: Sequence[str]) -> tuple[str, list[str]]:
    """The login's name, and the roles that it is no member of; raises ActionError when it cannot connect."""
    async with client.connect(database) as connection:
        rows = await connection.fetch(_LOOK, {"roles": sorted({*roles})})
    login = rows[0]["login"] if rows else ""
    return login, [row["role"] for row in rows if not row["held"]]
