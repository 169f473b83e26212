"""The rights that actions and checks need; a test compares the chart's roles with these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permission:
    """One right, in the words of its backend: verbs on a kind of object, a role, or a command."""

    backend: str
    group: str = ""  # of the API, "" for core
    resource: str = ""  # deployments, pods, deployments/scale; or a role; or a command
    verbs: tuple[str, ...] = ()
