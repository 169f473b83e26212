"""Brings the store to the schema of this release, forward only: at the start of `serve`, or by `remediator migrate`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from app.domain.errors import ConfigError
from app.store.database import Database

_SCRIPTS = Path(__file__).parent / "migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    return config


async def migrate(database: Database) -> tuple[str | None, str | None]:
    """Apply what is missing and return the revisions before and after; raises ConfigError on a newer schema."""

    def upgrade(connection: Connection) -> tuple[str | None, str | None]:
        before = MigrationContext.configure(connection).get_current_revision()
        config = _config()
        if before is not None and before not in {script.revision for script in _scripts(config).walk_revisions()}:
            raise ConfigError(
                f"the store has schema revision {before!r}, which a newer release made; run that release or a backup"
            )
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConfigError(f"the store's schema cannot be brought up to date: {error}") from error
        return before, _scripts(config).get_current_head()

    async with database.write(lock="migrate") as tx:
        return await tx.run_sync(upgrade)


async def is_current(database: Database) -> bool:
    """Whether the store has the schema of this release."""
    async with database.read() as tx:
        current = await tx.run_sync(lambda connection: MigrationContext.configure(connection).get_current_revision())
    return current == _scripts(_config()).get_current_head()


def _scripts(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)
