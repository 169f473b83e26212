"""What a start imports, and what it leaves to the first who needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Each costs tens of milliseconds and megabytes, and most installations need one or two of them.
HEAVY = {"aiohttp", "alembic", "apprise", "kubernetes", "psycopg", "redis"}
LOOK = """
import gc, json, sys
import app.__main__
print(json.dumps([sorted(sys.modules), gc.isenabled(), gc.get_freeze_count()]))
"""


def test_sdks_wait_until_somebody_needs_them() -> None:
    """The command line and the server begin without any of them; what was imported is no business of the collector."""
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, check=True, text=True)
    modules, collects, frozen = json.loads(done.stdout)
    assert set() == HEAVY & set(modules)
    assert collects
    assert frozen > 100_000


STORE = """
import asyncio, json, sys
import app.__main__
from app.store.db.database import Database
from app.store.migrations.migrate import migrate

async def use():
    database = Database(f"sqlite:///{sys.argv[1]}")
    await migrate(database)
    await database.probe()
    await database.close()

asyncio.run(use())
print(json.dumps(sorted(sys.modules)))
"""


def test_of_sqlalchemy_there_is_what_sqlite_needs(tmp_path: Path) -> None:
    """Its ORM and its half for PostgreSQL are a tenth of the memory of a service at rest."""
    words = [sys.executable, "-c", STORE, str(tmp_path / "store.db")]
    done = subprocess.run(words, capture_output=True, check=True, text=True)
    needless = ("sqlalchemy.orm", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql")
    assert [] == [name for name in json.loads(done.stdout) if name.startswith(needless)]


LOAD = """
import asyncio, json, sys
from app.backends.instances import Clients
from app.backends.connections import Connections
from app.backends.scope import Scope
connections = Connections.model_validate({"redis": {"cache": {"url": {"value": "redis://127.0.0.1:9"}}}})
asyncio.run(Clients(connections, Scope(kubernetes={"namespaces": ["shop"]})).load({"postgres", "redis"}))
print(json.dumps(sorted(sys.modules)))
"""


def test_what_a_catalog_needs_is_loaded_before_a_run_does() -> None:
    """As far as it is configured: a target that nothing can reach costs nothing."""
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, check=True, text=True)
    assert {"redis"} == HEAVY & set(json.loads(done.stdout))
