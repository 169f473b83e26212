"""`serve`, and `migrate`, which only changes the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from app.cli.options import with_settings
from app.domain.errors import ConfigError
from app.main import serve
from app.settings import Settings
from app.store.db.database import Database
from app.store.migrations.migrate import migrate


@click.command("serve")
@click.option("--listen", help="Address to serve on, host:port (default 127.0.0.1:8080).")
@with_settings
def serve_command(settings: Settings) -> None:
    """Receive alerts and remediate until stopped."""
    given = settings.model_fields_set
    if not given & {"store", "store_file"}:
        _make_directory(settings.data)
    if "catalog" not in given:
        _make_directory(settings.catalog[0])
    serve(settings)


def _make_directory(path: Path) -> None:
    """The defaults work in an empty directory; a catalog that the user names must exist."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make the directory {path}: {error.strerror}") from error


@click.command("migrate")
@with_settings
def migrate_command(settings: Settings) -> None:
    """Bring the store to the schema of this release."""

    async def upgrade() -> tuple[str | None, str | None]:
        database = Database(settings.store_url)
        if database.is_sqlite:
            _make_directory(Path(str(database.url.database)).parent)
        try:
            return await migrate(database)
        finally:
            await database.close()

    before, after = asyncio.run(upgrade())
    click.echo(f"already at {after}" if before == after else f"migrated from {before or 'nothing'} to {after}")
