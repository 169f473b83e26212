"""Runs Alembic's migrations. Only `migrate` imports it, where there is something to migrate."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from app.domain.errors import ConfigError


def config() -> Config:
    """Where the migrations are."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(connection: Connection) -> None:
    """Apply missing migrations; raises ConfigError where that cannot be done."""
    given = config()
    given.attributes["connection"] = connection
    try:
        command.upgrade(given, "head")
    except CommandError as error:
        raise ConfigError(f"the store's schema cannot be brought up to date: {error}") from error
