"""Everything that a service imports, so that a process forked from one that has it starts at once."""

from __future__ import annotations

from app import cli, main
from app.actions.registry import actions
from app.checks.registry import checks
from app.clients import http, kubernetes, postgres, redis
from app.store import upgrade

__all__ = ["actions", "checks", "cli", "http", "kubernetes", "main", "postgres", "redis", "upgrade"]

_found = (actions(), checks())
