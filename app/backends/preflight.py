"""The questions of preflight: what a backend finds out for a remediation before an alert needs it.

A need that several remediations share has the same key and is asked once. What only an alert will tell is not asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from app.backends.action import Action
from app.backends.actions import actions
from app.backends.base import Names
from app.backends.check import Check
from app.backends.checks import checks
from app.backends.instances import Clients
from app.backends.scope import Scope
from app.domain.findings import Finding, Result
from app.domain.model import JsonObject
from app.domain.permissions import Permission
from app.domain.remediation import CheckSpec, Remediation, StepSpec

_WILD = frozenset("*?[")
DENIED = "every run would be denied"


@dataclass(frozen=True, slots=True)
class Need:
    """One question; `ask` raises AppError where the answer is no."""

    key: str
    subject: str
    ask: Callable[[], Awaitable[Finding | None]]  # None: well; a finding: what else it is


@dataclass(frozen=True, slots=True)
class Asking:
    """A remediation and where it would work."""

    remediation: Remediation
    clients: Clients
    scope: Scope
    channel: str | None  # who is asked and told where the remediation names nobody
    now: Callable[[], datetime]
    is_open: Callable[[object], bool]  # whether an alert fills in a value, or a part of it

    def target(self, backend: str) -> JsonObject | None:
        """Return the fields of a target of this backend; a field that an alert fills in is a template."""
        spec = self.remediation.target
        return spec.fields if spec is not None and spec.backend == backend else None

    @property
    def steps(self) -> Iterator[StepSpec]:
        """The steps of all rungs."""
        return (step for rung in self.remediation.rungs for step in rung.steps)

    @property
    def checks(self) -> Iterator[CheckSpec]:
        """The preconditions, and the checks of all rungs."""
        yield from self.remediation.when
        for rung in self.remediation.rungs:
            yield from rung.verify

    @property
    def specs(self) -> list[StepSpec | CheckSpec]:
        """Steps and checks."""
        return [*self.steps, *self.checks]

    def used(self) -> list[tuple[Action[Any] | Check[Any], JsonObject]]:
        """Each action and check with the parameters that are given to it."""
        found: list[tuple[Action[Any] | Check[Any], JsonObject]] = [
            (actions()[step.action], step.with_) for step in self.steps
        ]
        return [*found, *((checks()[check.check], check.with_) for check in self.checks)]

    def named(self, section: str) -> list[str]:
        """The entries of a section of `connections` that parameters name, as far as no alert fills them in."""
        given = (params.get(field) for use, params in self.used() for field in naming(use.Params, section))
        return sorted({str(one) for one in given if one and not self.is_open(one)})

    def permissions(self, backend: str) -> list[Permission]:
        """Return the permissions that its actions and checks declare for a backend, each once."""
        return list(dict.fromkeys(one for use, _ in self.used() for one in use.permissions if one.backend == backend))

    def acts_on(self, backend: str) -> bool:
        """Whether a step acts on targets of this backend."""
        return any(actions()[step.action].target_backend == backend for step in self.steps)

    def places(self, named: tuple[str, object], patterns: Collection[str], known: Collection[str]) -> list[Place]:
        """The pairs of an instance and what is on it that a target may mean, by patterns of the scope.

        None stands for the default of the connection, or for any.
        """
        instance, inner = named
        if not self.is_open(instance) and not self.is_open(inner):
            return [(instance, None if inner is None else str(inner))]
        found: list[Place] = []
        for pattern in patterns:
            outer, _, rest = pattern.partition("/")
            meant = known if self.is_open(instance) else {instance}
            found += [(one, None if is_pattern(rest) else rest) for one in sorted(meant) if fnmatchcase(one, outer)]
        return list(dict.fromkeys(found))


Place = tuple[str, str | None]


def naming(params: type[Any], section: str | None = None) -> dict[str, str]:
    """The parameters that name an entry of `connections`, each with its section."""
    return {
        field.alias or name: one.section
        for name, field in params.model_fields.items()
        for one in field.metadata
        if isinstance(one, Names) and section in {None, one.section}
    }


def cannot(subject: str, message: str) -> Finding:
    """Return the finding that something cannot be done, and the remedy."""
    return Finding(subject=subject, result=Result.CANNOT, message=message)


def unknown(subject: str, message: str) -> Finding:
    """That it cannot be told beforehand, and why."""
    return Finding(subject=subject, result=Result.UNKNOWN, message=message)


def is_pattern(text: str) -> bool:
    """Whether a text of the scope stands for several."""
    return not _WILD.isdisjoint(text)
