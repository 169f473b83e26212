"""Everything that a service imports, so that a process forked from one that has it starts at once."""

from __future__ import annotations

from app import cli, main
from app.backends import web as http
from app.backends.actions import actions
from app.backends.checks import checks
from app.backends.kubernetes import client as kubernetes
from app.backends.postgres import client as postgres
from app.backends.redis import client as redis
from app.store.migrations import upgrade

__all__ = ["actions", "checks", "cli", "http", "kubernetes", "main", "postgres", "redis", "upgrade"]

_found = (actions(), checks())
