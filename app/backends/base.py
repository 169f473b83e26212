"""The contract of a backend: a folder with a module `backend`, whose `BACKEND` is one object of a class below.

The core asks it and never names it. `registry` finds it by its folder, or by the entry point group
`remediator.backends`. Its actions and checks are found beside it, in `actions/` and `checks/`. The module is imported
at every start: the SDK belongs into the module of the client, which is imported where a catalog needs it.
"""

from __future__ import annotations

import asyncio
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from app.domain.external_facts import Population
from app.domain.findings import Finding
from app.domain.model import JsonObject, Value
from app.domain.plans import Target

if TYPE_CHECKING:
    from app.backends.connections import Connections
    from app.backends.instances import Clients
    from app.backends.preflight import Asking, Need

DEFAULT = "default"  # the instance that a target or a parameter means where it names none
INSTANCE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_LONGEST = 63
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Names:
    """Says in a parameter's type which section of `connections` it names an entry of: `Annotated[str, Names("x")]`."""

    section: str


def matches(value: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (`*`, `?`, `[...]`) holds the whole value, upper and lower case told apart."""
    return any(fnmatchcase(value, pattern) for pattern in patterns)


class ScopeBlock(Value):
    """The block of one backend in `scope`: patterns of allowed targets. Without a pattern none is allowed."""

    def objection(self, target: Target) -> str | None:
        """Say why `target` is out of scope and which setting would bring it in, or None."""
        return f"{target.key!r} is not in scope"

    def params_objection(self, params: JsonObject) -> str | None:  # noqa: ARG002 - for backends that judge parameters
        """Say which parameter of a step or check, of any backend, is out of scope, or None."""
        return None


class HasTarget(Protocol):
    """The context of an action or a check."""

    @property
    def clients(self) -> Clients:
        """All clients of this process."""

    @property
    def target(self) -> Target:
        """The thing to act on."""


class TargetKind(ABC):
    """How a backend's target is written, read, judged and found."""

    Fields: ClassVar[type[Value]]  # below `target.<backend>`; a field may be a template
    instance_field: ClassVar[str]  # of `Fields`: the entry of `connections.<backend>` that it is on
    example: ClassVar[str]  # a key, as people may write it: redis:cache/0

    @abstractmethod
    def field_objection(self, field: str, value: str) -> str | None:
        """Say why a text, spelled out or made by a template, cannot stand in this field, or None; it is not empty."""

    @abstractmethod
    def known(self, fields: Mapping[str, Any]) -> Target | None:
        """As much of a target as can be judged before any alert; a field that an alert fills in is None there."""

    @abstractmethod
    async def claim(self, clients: Clients, fields: Any) -> Target:
        """The target that these fields name, for the scope to judge; asks nothing of the network."""

    async def resolve(self, clients: Clients, claimed: Target) -> Target:  # noqa: ARG002 - most are what they claim
        """The exact target of a claim that is in scope: a pod's workload. Raises PermanentError or TransientError."""
        return claimed

    @abstractmethod
    def key_objection(self, rest: str) -> str | None:
        """Say why the text after `<backend>:` is not the rest of a target's key, or None."""

    def instance(self, key: str) -> str:
        """The entry of `connections` that the target with this key is on."""
        return key.partition(":")[2].partition("/")[0]


class Backend(ABC, Generic[C]):
    """One kind of system that remediations act on, or ask."""

    name: ClassVar[str]  # of its folder, and in YAML
    title: ClassVar[str]  # for people
    prefix: ClassVar[str] = ""  # what the names of its actions and checks begin with, where that is not its name
    instances: ClassVar[str]  # what `connections.<name>` holds, for the reference
    docs: ClassVar[str] = ""  # a link to its documentation, where it is not part of ours
    Connection: ClassVar[type[Value]]  # the settings of one instance
    unconfigured: ClassVar[Value | None] = None  # the settings of the default instance where nothing is configured
    Scope: ClassVar[type[ScopeBlock] | None] = None
    target: ClassVar[TargetKind | None] = None
    client_module: ClassVar[str] = "client"  # beside the backend's own

    # What the configuration may say

    def instance_objection(self, name: str) -> str | None:
        """Say why this cannot be the name of an instance, or None."""
        if INSTANCE.fullmatch(name) and len(name) <= _LONGEST:
            return None
        return f"{name!r} cannot be the name of a connection; use letters, digits and . _ - (at most {_LONGEST})"

    def protect(self, block: Any, instances: Mapping[str, Any], store_url: str) -> Any:  # noqa: ARG002
        """Return the scope's block without the remediator's own parts, such as its own store."""
        return block

    def file_problems(self, connection: Any) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - secrets are read without it
        """Find the files that an instance names and that cannot be read or used: the field, and why."""
        return iter(())

    # Clients

    @abstractmethod
    async def connect(self, clients: Clients, instance: str) -> C:
        """A client of one instance; may raise PermanentError. Where it has `close`, that is awaited at the end."""

    async def client(self, clients: Clients, instance: str = DEFAULT) -> C:
        """The client of an instance, made at its first use; raises PermanentError where it is not configured."""
        made: C = await clients.get(self, instance)
        return made

    async def of(self, context: HasTarget) -> C:
        """The client of the instance that the context's target is on."""
        return await self.client(context.clients, self.instance(context.target))

    def instance(self, target: Target) -> str:
        """The instance that a target is on."""
        return DEFAULT if self.target is None else self.target.instance(target.key)

    def is_reachable(self, connections: Connections, block: Any) -> bool:  # noqa: ARG002 - some need no connection
        """Whether the configuration lets any run reach it; else its SDK is not loaded beforehand."""
        return bool(connections.of(self.name))

    async def load(self) -> None:
        """Import the module of the client, in a thread, so that everything else goes on."""
        module = f"{type(self).__module__.rpartition('.')[0]}.{self.client_module}"
        if module not in sys.modules:
            await asyncio.to_thread(import_module, module)

    # Facts

    def neighbourhood(self, target: Target) -> str:  # noqa: ARG002 - for backends that know a target's neighbours
        """Where the population is that `storm` asks for, in words; empty where there is none to ask for."""
        return ""

    async def population(self, clients: Clients, target: Target) -> Population:  # noqa: ARG002 - as above
        """The targets around `target`, and which of them are ill; asked where there is a neighbourhood."""
        unknown = f"the backend {self.name} does not say which targets are around one"
        return Population(where=self.neighbourhood(target), total=0, unknown=unknown)

    def needs(self, asking: Asking) -> Iterator[Need | Finding]:  # noqa: ARG002 - for backends that can ask
        """Return the questions of preflight for one remediation; nothing where it does not concern this backend."""
        return iter(())
