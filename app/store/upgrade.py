"""Runs Alembic's migrations; imported by `app.store.migrate` where there is something to migrate, by nobody else."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from app.domain.errors import ConfigError
from app.store.migrate import SCRIPTS


def config() -> Config:
    """Where the migrations are."""
    made = Config()
    made.set_main_option("script_location", str(SCRIPTS))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(connection: Connection) -> None:
    """Apply what is missing; raises ConfigError where that cannot be done."""
    given = config()
    given.attributes["connection"] = connection
    try:
        command.upgrade(given, "head")
    except CommandError as error:
        raise ConfigError(f"the store's schema cannot be brought up to date: {error}") from error
