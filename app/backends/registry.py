"""All backends by name: the folders beside this module, and the entry points of the group `remediator.backends`.

A plug-in that cannot be used is an error that names its distribution: a service without one of its backends would
refuse runs that it should do.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

import app.backends
from app.backends.base import Backend, TargetKind
from app.domain.errors import ConfigError, PermanentError
from app.domain.plans import NO_BACKEND
from app.domain.reasons import Reason

GROUP = "remediator.backends"
_RESERVED = frozenset({NO_BACKEND, "secrets", "timeout"})  # keys of `connections` that are no backend's
T = TypeVar("T")


class Found(dict[str, T]):
    """Actions or checks by name; a run of an earlier time may name one whose package is gone."""

    def __init__(self, noun: str, found: Mapping[str, T]) -> None:
        super().__init__(found)
        self._noun = noun

    def __missing__(self, name: str) -> T:
        """Raises PermanentError."""
        message = f"there is no {self._noun} {name!r}; install the package that has it"
        raise PermanentError(message, reason=Reason.CONFIG_INVALID)


@cache
def backends() -> Mapping[str, Backend[Any]]:
    """Every backend by name; raises ConfigError that names the distribution of a plug-in that cannot be used."""
    found: dict[str, Backend[Any]] = {}
    for info in pkgutil.iter_modules(app.backends.__path__):
        if info.ispkg:
            backend = importlib.import_module(f"app.backends.{info.name}.backend").BACKEND
            found[backend.name] = backend
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        backend = _plugged(point)
        if point.name in found or point.name in _RESERVED:
            raise _broken(point, f"there is a backend {point.name!r} already, or the name has another meaning")
        if _prefix(backend) in {_prefix(one) for one in found.values()}:
            raise _broken(point, f"actions that begin with {_prefix(backend)!r} belong to another backend")
        found[point.name] = backend
    return MappingProxyType(dict(sorted(found.items())))


def backend(name: str) -> Backend[Any]:
    """The backend of this name; raises PermanentError where none is installed, as for a run of an earlier time."""
    found = backends().get(name)
    if found is None:
        message = f"there is no backend {name!r} (installed: {', '.join(backends())}); install the package that has it"
        raise PermanentError(message, reason=Reason.CONFIG_INVALID)
    return found


def target_kind(name: str) -> TargetKind:
    """How targets of this backend are; raises PermanentError where it has none."""
    kind = backend(name).target
    if kind is None:
        raise PermanentError(f"{name} has no targets", reason=Reason.CONFIG_INVALID)
    return kind


def targets() -> dict[str, TargetKind]:
    """The kinds of targets, by the backend that has them."""
    return {name: one.target for name, one in backends().items() if one.target is not None}


def having(role: type[T]) -> T | None:
    """The backend that plays a role for the core, such as telling people; None where none is installed."""
    return next((one for one in backends().values() if isinstance(one, role)), None)


def discover(room: str, base: type[T]) -> dict[str, T]:
    """Instantiate each concrete subclass of `base` in the folder `room` of each backend, by name.

    Raises TypeError where a class is not named as its backend and its module, or two have the same name; ConfigError
    where it is one of a plug-in.
    """
    found: dict[str, T] = {}
    plugged = {point.name: point for point in entry_points(group=GROUP)}
    for name, one in backends().items():
        try:
            found |= _of_backend(one, room, base)
        except Exception as error:
            if name not in plugged:
                raise
            raise _broken(plugged[name], f"{room}: {error}") from error
    return dict(sorted(found.items()))


def _of_backend(one: Backend[Any], room: str, base: type[T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for module in _modules(one, room):
        for cls in vars(module).values():
            if not (inspect.isclass(cls) and issubclass(cls, base) and cls.__module__ == module.__name__):
                continue
            if inspect.isabstract(cls):
                continue
            name, wanted = str(getattr(cls, "name", "")), f"{_prefix(one)}.{module.__name__.rpartition('.')[2]}"
            if name != wanted or name in found:
                msg = f"{module.__name__}.{cls.__name__}: its name must be {wanted!r}, and no other's, not {name!r}"
                raise TypeError(msg)
            found[name] = cls()
    return found


def _modules(one: Backend[Any], room: str) -> Iterator[ModuleType]:
    path = f"{type(one).__module__.rpartition('.')[0]}.{room}"
    if find_spec(path):
        package = importlib.import_module(path)
        for info in pkgutil.iter_modules(package.__path__, f"{path}."):
            yield importlib.import_module(info.name)


def _prefix(one: Backend[Any]) -> str:
    return one.prefix or one.name


def _plugged(point: EntryPoint) -> Backend[Any]:
    try:
        found = point.load()
    except Exception as error:  # whatever the module of a plug-in raises
        raise _broken(point, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, Backend):
        raise _broken(point, f"{point.value} is no Backend of app.backends.base")
    missing = [name for name in ("name", "title", "instances", "Connection") if not hasattr(found, name)]
    if missing:
        raise _broken(point, f"{point.value} lacks {', '.join(missing)}")
    if found.name != point.name:
        raise _broken(point, f"{point.value} says that its name is {found.name!r}, not {point.name!r}")
    return found


def _broken(point: EntryPoint, why: str) -> ConfigError:
    dist = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    return ConfigError(f"the plug-in {dist} (backend {point.name!r}) cannot be used: {why}; mend it, or uninstall it")
