"""What a start imports, and what it leaves to the first who needs it."""

from __future__ import annotations

import json
import subprocess
import sys

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
