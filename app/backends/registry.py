"""Finds the classes of the backends by their folders: kubernetes/actions/scale.py holds the action kubernetes.scale."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import TypeVar

import app.backends

T = TypeVar("T")


def discover(room: str, base: type[T]) -> dict[str, T]:
    """Instantiate each concrete subclass of `base` in the folder `room` of each backend, by name.

    Raises TypeError where a class's name does not end with the name of its module, or two have the same.
    """
    found: dict[str, T] = {}
    for module in _modules(room):
        for cls in vars(module).values():
            if not (inspect.isclass(cls) and issubclass(cls, base) and cls.__module__ == module.__name__):
                continue
            if inspect.isabstract(cls):
                continue
            name = str(getattr(cls, "name", ""))
            last = module.__name__.rpartition(".")[2]
            if name.rpartition(".")[2] != last or name in found:
                msg = f"{module.__name__}.{cls.__name__}: its name must be its own and end with .{last}, not {name!r}"
                raise TypeError(msg)
            found[name] = cls()
    return dict(sorted(found.items()))


def _modules(room: str) -> Iterator[ModuleType]:
    for backend in pkgutil.iter_modules(app.backends.__path__, "app.backends."):
        path = f"{backend.name}.{room}"
        if backend.ispkg and find_spec(path):
            package = importlib.import_module(path)
            for info in pkgutil.iter_modules(package.__path__, f"{path}."):
                yield importlib.import_module(info.name)
