"""Finds the classes of a package whose `name` is their module's path: kubernetes/scale.py holds kubernetes.scale."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def discover(package: ModuleType, base: type[T]) -> dict[str, T]:
    """Instantiate each concrete subclass of `base` below `package`; raises TypeError where name and path differ."""
    found: dict[str, T] = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        path = info.name.removeprefix(f"{package.__name__}.")
        for cls in vars(module).values():
            if not (inspect.isclass(cls) and issubclass(cls, base) and cls.__module__ == info.name):
                continue
            if inspect.isabstract(cls):
                continue
            if getattr(cls, "name", None) != path:
                msg = f"{info.name}.{cls.__name__}: its name must be {path!r}, the path of its module"
                raise TypeError(msg)
            found[path] = cls()
    return dict(sorted(found.items()))
