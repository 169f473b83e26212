"""postgres.terminate_idle: frees connections that clients hold without using them.

Plans exact sessions (pid and start of the backend), so that applying again can only meet sessions that are gone. Never
touches its own sessions, superusers, replication, background processes or another database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from app.backends.action import Action, Context
from app.backends.postgres.backend import APPLICATION_NAME, POSTGRES
from app.domain.durations import Duration, format_duration
from app.domain.errors import PermanentError
from app.domain.model import JsonObject, Value
from app.domain.permissions import Permission
from app.domain.plans import NotYet, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk
from app.domain.texts import Text
from app.domain.wording import table

if TYPE_CHECKING:
    from psycopg.rows import DictRow

    from app.backends.postgres.client import Connection

_SHOWN = ("pid", "user", "application", "state", "idle_for")
_POLL_SECONDS = 0.05
_GONE_WITHIN_SECONDS = 5.0

_COUNTS = """
SELECT current_user::text AS role,
       count(*) AS connections,
       count(*) FILTER (WHERE a.state = 'idle') AS idle,
       count(*) FILTER (WHERE a.backend_start IS NULL AND NOT r.rolsuper) AS hidden
FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.datname = current_database() AND coalesce(a.backend_type, 'client backend') = 'client backend'
  AND a.pid <> pg_backend_pid()
"""

# What every session that may be terminated satisfies, when planning and again at the moment of terminating; then it
# must be due, too.
_IDLE = """
  SELECT a.pid, a.backend_start, a.usename::text AS username, a.application_name AS application, a.state,
         extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS idle_seconds,
         a.state_change <= clock_timestamp() - %(idle)s::interval AS is_due,
         pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE') AS may_terminate
  FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
  WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND NOT r.rolsuper
    AND a.pid <> pg_backend_pid() AND a.application_name <> %(own)s
    AND a.state = ANY(%(states)s)
"""

_CANDIDATES = f"{_IDLE} ORDER BY a.state_change, a.pid"

_TERMINATE = f"""
WITH planned AS (SELECT * FROM unnest(%(pids)s::int[], %(starts)s::timestamptz[]) AS p(pid, backend_start)),
     idle AS MATERIALIZED ({_IDLE})
SELECT pid, pg_terminate_backend(pid) AS signalled FROM idle JOIN planned USING (pid, backend_start) WHERE is_due
"""  # noqa: S608 - both parts are constants of this module

_REMAINING = """
SELECT count(*) AS remaining
FROM pg_stat_activity JOIN unnest(%(pids)s::int[], %(starts)s::timestamptz[]) AS p(pid, backend_start)
  USING (pid, backend_start)
"""


class TerminateIdleParams(Value):
    """Which sessions to end; an empty list of patterns means any."""

    idle_longer_than: Duration = Field(default=timedelta(minutes=10), description="Idle for at least this long.")
    max: int = Field(default=50, ge=1, le=1000, description="Never end more than this; the longest idle go first.")
    users: Annotated[tuple[str, ...], Text.PATTERN] = Field(
        default=(), description="Only sessions of these users (patterns)."
    )
    applications: Annotated[tuple[str, ...], Text.PATTERN] = Field(
        default=(), description="Only these application names (patterns)."
    )
    exclude_applications: Annotated[tuple[str, ...], Text.PATTERN] = Field(
        default=(), description="Not these application names (patterns)."
    )
    in_transaction: bool = Field(default=False, description="Also sessions that are idle in a transaction.")

    def selects(self, user: str, application: str) -> bool:
        """Whether the patterns allow ending a session."""
        return (
            _matches(user, self.users)
            and _matches(application, self.applications)
            and not (self.exclude_applications and _matches(application, self.exclude_applications))
        )

    def bindings(self) -> dict[str, Any]:
        """Return the parameters of `_IDLE`."""
        transaction = ["idle in transaction", "idle in transaction (aborted)"] if self.in_transaction else []
        return {"own": APPLICATION_NAME, "states": ["idle", *transaction], "idle": self.idle_longer_than}


class TerminateIdle(Action[TerminateIdleParams]):
    """Ends sessions of one database that have been idle for long."""

    name = "postgres.terminate_idle"
    summary = "End sessions of a PostgreSQL database that have been idle for long."
    Params = TerminateIdleParams
    risk = Risk.DISRUPTIVE
    target_backend = "postgres"
    repeatable = True
    # Only the approved sessions are ended, whichever else have become idle since.
    drifts = frozenset({"summary", "connections", "idle", "qualifying", "selected", "terminated"})
    permissions = (
        Permission(backend="postgres", resource="pg_signal_backend"),
        Permission(backend="postgres", resource="pg_read_all_stats"),
    )

    async def plan(self, context: Context, params: TerminateIdleParams) -> PlannedStep:
        """List the sessions that would be ended, each by pid and start."""
        database = context.target.name
        async with (await POSTGRES.of(context)).connect(database) as connection:
            counts = await _counts(connection)
            rows = await connection.fetch(_CANDIDATES, params.bindings())
        _require_sight(counts)
        matching = [row for row in rows if params.selects(row["username"], row["application"])]
        qualifying = [row for row in matching if row["is_due"]]
        selected = qualifying[: params.max]
        _require_right(counts["role"], selected)
        return self.planned(
            params,
            summary=_summary(database, selected, len(qualifying), params),
            before={
                "connections": counts["connections"],
                "idle": counts["idle"],
                "qualifying": len(qualifying),
                "selected": [_described(row) for row in selected],
            },
            desired={"terminated": [[row["pid"], _text(row["backend_start"])] for row in selected]},
            changes=bool(selected),
            not_yet=None if selected else _not_yet(database, matching, params, context.now),
        )

    def in_words(self, step: PlannedStep) -> list[str]:
        """The sessions, the longest idle first, and how many more there are."""
        sessions = [
            one | {"idle_for": format_duration(timedelta(seconds=one["idle_seconds"]))}
            for one in step.before["selected"]
        ]
        counts = f"{step.before['connections']} connections, {step.before['idle']} of them idle; these are ended:"
        return [counts, *(f"  {line}" for line in table(sessions, _SHOWN))]

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """End those planned sessions that are still the same and still idle; wait until they are gone."""
        params = TerminateIdleParams.model_validate(step.params)
        planned = step.desired["terminated"]
        sessions = {"pids": [pid for pid, _ in planned], "starts": [start for _, start in planned]}
        async with (await POSTGRES.of(context)).connect(context.target.name) as connection:
            rows = await connection.fetch(_TERMINATE, params.bindings() | sessions)
            ended = {row["pid"] for row in rows if row["signalled"]}
            remaining = await _wait_until_gone(connection, [each for each in planned if each[0] in ended])
            counts = await _counts(connection)
        return {
            "terminated": len(ended),
            "skipped": len(planned) - len(ended),
            "still_closing": remaining,
            "connections": counts["connections"],
        }


async def _counts(connection: Connection) -> DictRow:
    (row,) = await connection.fetch(_COUNTS)
    return row


async def _wait_until_gone(connection: Connection, sessions: Sequence[Sequence[Any]]) -> int:
    """How many of `sessions` are left after a while; an idle backend ends at once unless its host is in trouble."""
    bindings = {"pids": [pid for pid, _ in sessions], "starts": [start for _, start in sessions]}
    deadline = asyncio.get_running_loop().time() + _GONE_WITHIN_SECONDS
    while True:
        (row,) = await connection.fetch(_REMAINING, bindings)
        remaining = int(row["remaining"])
        if not remaining or asyncio.get_running_loop().time() > deadline:
            return remaining
        await asyncio.sleep(_POLL_SECONDS)


def _require_sight(counts: DictRow) -> None:
    """Refuse to call a database free of idle sessions when some could not be seen."""
    if counts["hidden"]:
        msg = (
            f"PostgreSQL hides {counts['hidden']} sessions from role {counts['role']!r}; grant it pg_read_all_stats "
            "(or pg_monitor)"
        )
        raise PermanentError(msg, reason=Reason.FORBIDDEN)


def _require_right(role: str, selected: Sequence[DictRow]) -> None:
    if not all(row["may_terminate"] for row in selected):
        msg = f"role {role!r} may not end sessions of other roles; grant it pg_signal_backend"
        raise PermanentError(msg, reason=Reason.FORBIDDEN)


def _matches(value: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)


def _summary(database: str, selected: Sequence[DictRow], qualifying: int, params: TerminateIdleParams) -> str:
    idle = f"idle for {format_duration(params.idle_longer_than)} or longer"
    if not selected:
        return f"no session of database {database} is {idle}"
    most = f" (the longest idle of {qualifying})" if qualifying > len(selected) else ""
    return f"end {len(selected)} sessions{most} of database {database} {idle}"


def _not_yet(database: str, young: Sequence[DictRow], params: TerminateIdleParams, now: datetime) -> NotYet | None:
    """When the session that has been idle for longest is due, unless it is used again; None where none is idle."""
    if not young:
        return None
    longest = timedelta(seconds=round(young[0]["idle_seconds"]))
    message = (
        f"{len(young)} sessions of database {database} are idle, the longest for {format_duration(longest)}; "
        f"none for {format_duration(params.idle_longer_than)} yet"
    )
    return NotYet(message=message, at=now + params.idle_longer_than - timedelta(seconds=young[0]["idle_seconds"]))


def _described(row: DictRow) -> JsonObject:
    return {
        "pid": row["pid"],
        "backend_start": _text(row["backend_start"]),
        "user": row["username"],
        "application": row["application"],
        "idle_seconds": round(row["idle_seconds"]),
        "state": row["state"],
    }


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
