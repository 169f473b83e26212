"""postgres.connections: whether a database, or its server, has few enough connections.

The check's own connection is not counted. Sessions that the role may not see make it fail to observe, never hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from app.backends.check import Check, CheckContext, observation, observing
from app.backends.postgres.backend import POSTGRES
from app.domain.errors import CheckError
from app.domain.model import Value
from app.domain.moments import Count
from app.domain.permissions import Permission
from app.domain.plans import Observation

if TYPE_CHECKING:
    from psycopg.rows import DictRow

_LOOK = """
SELECT current_user::text AS role,
       current_setting('max_connections')::int AS allowed,
       count(*) AS used,
       count(*) FILTER (WHERE (%(server)s OR datname = current_database())
                          AND (%(state)s = 'any' OR state = %(state)s)) AS counted,
       count(*) FILTER (WHERE backend_start IS NULL) AS hidden
FROM pg_stat_activity
WHERE usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend' AND pid <> pg_backend_pid()
"""


class ConnectionsParams(Value):
    """The sessions to count and the bound: one of `max` and `min_free`."""

    max: Count | None = Field(default=None, description="At most this many connections.")
    min_free: Count | None = Field(default=None, description="At least this many of max_connections unused.")
    state: Literal["idle", "active", "any"] = Field(default="any", description="With max: which sessions count.")
    scope: Literal["database", "server"] = Field(default="database", description="With max: where they count.")

    @model_validator(mode="after")
    def _one_bound(self) -> ConnectionsParams:
        if (self.max is None) == (self.min_free is None):
            msg = "exactly one of max and min_free must be given"
            raise ValueError(msg)
        if self.min_free is not None and self.state != "any":
            msg = "min_free looks at all connections of the server; state goes with max"
            raise ValueError(msg)
        return self


class Connections(Check[ConnectionsParams]):
    """Counts client connections."""

    name = "postgres.connections"
    summary = "A PostgreSQL database or server has few enough connections."
    Params = ConnectionsParams
    target_backend = "postgres"
    permissions = (Permission(backend="postgres", resource="pg_read_all_stats"),)

    async def observe(self, context: CheckContext, params: ConnectionsParams) -> Observation:
        """Count once."""
        bindings = {"server": params.scope == "server", "state": params.state}
        with observing():
            async with (await POSTGRES.of(context)).connect(context.target.name) as connection:
                (row,) = await connection.fetch(_LOOK, bindings)
        if row["hidden"]:
            msg = f"PostgreSQL hides {row['hidden']} sessions from role {row['role']!r}; grant it pg_read_all_stats"
            raise CheckError(msg)
        return _judged(params, row)


def _judged(params: ConnectionsParams, row: DictRow) -> Observation:
    if params.min_free is not None:
        free = row["allowed"] - row["used"]
        message = f"{free} of {row['allowed']} connections are free, at least {params.min_free} should be"
        return observation(free >= params.min_free, message, free=free, max_connections=row["allowed"])
    most = params.max or 0
    kind = "" if params.state == "any" else f"{params.state} "
    message = f"{row['counted']} {kind}connections to the {params.scope}, at most {most} should be"
    return observation(row["counted"] <= most, message, connections=row["counted"])
