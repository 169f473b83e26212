"""Brings the store to the schema of this release, forward only: at the start of `serve`, or by `remediator migrate`.

Alembic is imported only where there is something to migrate; a new SQLite file gets the tables as they are now.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select, text

from app.domain.errors import ConfigError
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.durability import require_sessions
from app.store.db.rerun import rerun
from app.store.db.schema import metadata

LOCK = "migrate"
SCRIPTS = Path(__file__).parent
_version = Table(  # Alembic's, as Alembic makes it
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
# A slow machine reads Alembic and the scripts for seconds between two statements.
_MAY_PAUSE = text("SELECT set_config('idle_in_transaction_session_timeout', '60s', true)")


def revisions() -> list[str]:
    """Return every revision that this release knows, the newest last: a migration's file is <revision>_<what>.py."""
    return sorted(path.name.partition("_")[0] for path in (SCRIPTS / "versions").glob("*.py"))


@rerun
async def migrate(database: Database) -> tuple[str | None, str | None]:
    """Apply missing migrations and return the revisions before and after.

    Raises ConfigError on a newer schema, and behind a pooler that shares sessions.
    """
    known = revisions()
    await require_sessions(database)
    async with database.write(LOCK) as tx:
        if not database.is_sqlite:
            await tx.execute(_MAY_PAUSE)
        before, is_empty = await _current(tx)
        if before is not None and before not in known:
            raise ConfigError(
                f"the store has schema revision {before!r}, which a newer release made; run that release or a backup"
            )
        if is_empty and database.is_sqlite:
            await _create(tx, known[-1])
        elif before != known[-1]:
            from app.store.migrations.upgrade import upgrade  # noqa: PLC0415 - imports Alembic

            await tx.run_sync(upgrade)
    return before, known[-1]


async def is_current(database: Database) -> bool:
    """Whether the store has the schema of this release."""
    async with database.read() as tx:
        current, _ = await _current(tx)
    return current == revisions()[-1]


async def _current(tx: AsyncConnection) -> tuple[str | None, bool]:
    """The store's revision, None where it has none, and whether it has no table at all."""
    tables = await tx.run_sync(lambda connection: inspect(connection).get_table_names())
    if _version.name not in tables:
        return None, not tables
    return (await tx.execute(select(_version.c.version_num))).scalar_one_or_none(), False


async def _create(tx: AsyncConnection, revision: str) -> None:
    await tx.run_sync(metadata.create_all)
    await tx.run_sync(_version.create)
    await tx.execute(insert(_version).values(version_num=revision))
