"""The parts that the commands share: the settings from their flags, times, and their exit status."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from app.api.query import moment
from app.domain.errors import AppError, ConfigError
from app.domain.remediation import Mode
from app.main import audit_key_of, utc_now
from app.settings import Settings, load_settings
from app.store.db.database import Database
from app.store.migrations.migrate import is_current
from app.telemetry.logs import configure

NO, CANNOT_TELL = 1, 2
T = TypeVar("T")


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic only in newer stubs
    """A time, or how long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the forms of the API's `since`."""
        try:
            return moment(str(value), utc_now())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the settings that its flags, the environment and the config file make; problems end it."""

    @click.option("--config", type=click.Path(path_type=Path), envvar="REMEDIATOR_CONFIG", help="The config file.")
    @click.option("--catalog", multiple=True, type=click.Path(path_type=Path), help="File or directory; repeatable.")
    @click.option("--store", help="sqlite:///file.db or postgresql://…")
    @click.option("--data", type=click.Path(path_type=Path), help="Directory of the SQLite store.")
    @click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="The highest mode to use.")
    @wraps(command)
    def settled(config: Path | None, catalog: tuple[Path, ...], **flags: Any) -> Any:
        own = {key: flags.pop(key) for key in list(flags) if key not in {"store", "data", "mode", "listen"}}
        try:
            settings = load_settings(config, flags | {"catalog": catalog or None})
            configure(settings.log.level, settings.log.format)
            return command(settings, **own)
        except AppError as error:
            _fail(error)

    return settled


def _fail(error: AppError) -> NoReturn:
    for diagnostic in getattr(error, "diagnostics", ()):
        click.echo(str(diagnostic), err=True)
    click.echo(f"remediator: {error.message}", err=True)
    sys.exit(CANNOT_TELL)


def has_run(database: Database) -> bool:
    """Whether there is a store: to open one on SQLite would make its file."""
    return not database.is_sqlite or Path(str(database.url.database)).exists()


async def use_store(settings: Settings, use: Callable[[Database], Awaitable[T]]) -> T:
    """Read the configured store, which must be there and have the schema of this release."""
    database = Database(settings.store_url, audit_key=audit_key_of(settings))
    if not has_run(database):
        where = database.url.database
        raise ConfigError(f"there is no store at {where}; name another one with --config, --data or --store")
    try:
        if not await is_current(database):
            raise ConfigError(
                "the store has the schema of another release; `remediator migrate` or `serve` brings it up"
            )
        return await use(database)
    finally:
        await database.close()
