"""Finds the files of a catalog below the paths that the settings name.

Hidden entries are left out: a mounted ConfigMap keeps its content in `..data` and shows links to it beside that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

Snapshot = tuple[tuple[str, int, int, int], ...]  # path, inode, time of change and size of each file

_SUFFIXES = frozenset({".yaml", ".yml"})


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files in a stable order, each once; a path that is no directory stands for itself."""
    found: dict[Path, None] = {}
    for path in paths:
        for file in _below(path) if path.is_dir() else (path,):
            found.setdefault(file)
    return list(found)


def _below(directory: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix in _SUFFIXES:
                yield Path(folder) / name


def snapshot(paths: Sequence[Path]) -> Snapshot:
    """Differs when a file appeared, went, was written or was swapped behind its link."""
    seen = []
    for file in find_files(paths):
        try:
            status = file.stat()
        except OSError:
            seen.append((str(file), 0, 0, 0))
        else:
            seen.append((str(file), status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(seen)
