"""How to reach the systems that remediations act on: a block for each backend, with its instances by name.

The model is made of what the installed backends say, so that it validates, explains and publishes each block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from app.backends.base import DEFAULT, Backend
from app.backends.registry import backends
from app.backends.secrets import SecretSource
from app.domain.durations import Duration
from app.domain.errors import PermanentError
from app.domain.model import Value
from app.domain.reasons import Reason


class _Connections(Value):
    """Everything that remediations may name."""

    secrets: dict[str, SecretSource] = Field(default_factory=dict, description="Named secrets for http.request.")
    timeout: Duration = Field(
        default=timedelta(seconds=10), le=timedelta(hours=1), description="Of one call to any of them."
    )

    def of(self, section: str) -> Mapping[str, Any]:
        """The instances of a backend, or the secrets, by name; as they are configured."""
        found: Mapping[str, Any] = getattr(self, section, {})
        return found

    def instance(self, backend: Backend[Any], name: str) -> Any:
        """The settings of one instance; raises PermanentError where it is not configured."""
        known = self.of(backend.name)
        if name == DEFAULT and not known and backend.unconfigured is not None:
            return backend.unconfigured
        if name not in known:
            raise not_configured(backend.name, name, known)
        return known[name]

    def secret(self, name: str) -> SecretSource:
        """A named secret; raises PermanentError where it is not configured."""
        if name not in self.secrets:
            raise not_configured("secrets", name, self.secrets)
        return self.secrets[name]


def not_configured(section: str, name: str, known: Mapping[str, object]) -> PermanentError:
    """That `connections` has no such entry, and which ones it has."""
    names = ", ".join(sorted(known)) or "none"
    return PermanentError(f"connections.{section} has no {name!r} (configured: {names})", reason=Reason.CONFIG_INVALID)


def _named(backend: Backend[Any]) -> Callable[[object], object]:
    """Refuses the settings of an instance that stand where its name should."""
    fields = backend.Connection.model_fields

    def check(given: object) -> object:
        for key in given if isinstance(given, Mapping) else ():
            if key in fields:
                place = f"connections.{backend.name}"
                raise ValueError(f"{key} belongs under the name of an instance; write {place}.{DEFAULT}.{key}")
        return given

    return check


def _judged(backend: Backend[Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def check(given: dict[str, Any]) -> dict[str, Any]:
        objection = next(filter(None, map(backend.instance_objection, given)), None)
        if objection is not None:
            raise ValueError(objection)
        return given

    return check


def _field(backend: Backend[Any]) -> tuple[Any, Any]:
    named: Any = dict.__class_getitem__((str, backend.Connection))
    rules = BeforeValidator(_named(backend)), AfterValidator(_judged(backend))
    return Annotated[(named, *rules)], Field(default_factory=dict, description=backend.instances)


if TYPE_CHECKING:
    Connections = _Connections
else:
    Connections = create_model(
        "Connections", __base__=_Connections, __module__=__name__, **{n: _field(b) for n, b in backends().items()}
    )
    Connections.__doc__ = _Connections.__doc__
