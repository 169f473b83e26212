"""Loads a catalog from files: all of it, or none of it with every problem in every file.

Called at start, by `remediator check` and by each reload. It reads files and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from app.backends.action import Action
from app.backends.actions import actions as all_actions
from app.backends.check import Check
from app.backends.checks import checks as all_checks
from app.catalog.catalog import Catalog
from app.catalog.diagnostics import Place, Report, join_path, show, summary
from app.catalog.document import Node, read_document
from app.catalog.fields import field_names
from app.catalog.files import find_files, snapshot
from app.catalog.validation import Entry, Vocabulary, read_entry, read_freeze
from app.domain.errors import ConfigError
from app.domain.freezes import Freeze
from app.domain.names import did_you_mean
from app.domain.remediation import Remediation

_START = (1, 1)
_KEY = "remediations"
_FREEZES = "freezes"


def load(
    paths: Sequence[Path],
    now: datetime,
    *,
    actions: Mapping[str, Action[Any]] | None = None,
    checks: Mapping[str, Check[Any]] | None = None,
) -> Catalog:
    """The catalog in the given files and directories; raises ConfigError with every problem."""
    vocabulary = Vocabulary(
        all_actions() if actions is None else actions,
        all_checks() if checks is None else checks,
    )
    seen = snapshot(paths)
    loading = _Loading(vocabulary)
    reports = [_report_without_files(path) for path in paths if path.is_dir() and not find_files([path])]
    reports += [loading.read(file) for file, *_ in seen]
    loading.warn_of_freezes(now)
    problems = [problem for report in reports for problem in report.problems]
    if problems:
        raise ConfigError(summary(problems), problems)
    warnings = [warning for report in reports for warning in report.warnings]
    freezes = [freeze for freeze, *_ in loading.freezes]
    return Catalog.of(loading.entries, freezes, seen=seen, warnings=warnings, loaded_at=now)


def _report_without_files(path: Path) -> Report:
    report = Report(str(path))
    report.warning(_START, "", "no *.yaml or *.yml file in this directory")
    return report


class _Loading:
    """The entries read so far; names must differ over all files."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.entries: list[Entry] = []
        self.freezes: list[tuple[Freeze, Place, Report]] = []
        self._vocabulary = vocabulary
        self._named: dict[tuple[str, str], str] = {}

    def read(self, file: str) -> Report:
        """Take in one file and return its problems."""
        report = Report(file)
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            report.problem(_START, "", f"cannot be read: {error.strerror}")
            return report
        root, problems = read_document(content)
        for problem in problems:
            report.problem(problem.at, "", problem.message)
        if root is not None:
            self._read_root(root, report)
            _let_go(root)
        elif not problems:
            report.warning(_START, "", "the file is empty")
        return report

    def warn_of_freezes(self, now: datetime) -> None:
        """When all is read: say which freezes keep nothing from acting."""
        names = [entry.remediation.name for entry in self.entries]
        for freeze, place, report in self.freezes:
            if freeze.is_over(now):
                report.warning(place.at, place.path, "the freeze is over for good; it can be taken out")
            for pattern in freeze.remediations:
                if names and not any(fnmatchcase(name, pattern) for name in names):
                    hint = did_you_mean(pattern, names)
                    report.warning(place.at, place.path, f'"{pattern}" is the name of no remediation{hint}')

    def _read_root(self, root: Node, report: Report) -> None:
        if not isinstance(root.value, dict):
            report.problem(root.at, "", f'must be a mapping with the list "{_KEY}", not {show(root.value)}')
            return
        for key, at in root.keys.items():
            if key not in {_KEY, _FREEZES}:
                hint = did_you_mean(key, [_KEY, _FREEZES]) or f'; a file holds "{_KEY}", "{_FREEZES}" and nothing else'
                hint = f'; it belongs to an entry of "{_KEY}"' if key in field_names(Remediation) else hint
                report.problem(at, key, f'unknown field "{key}"{hint}')
        if not root.keys.keys() & {_KEY, _FREEZES}:
            report.problem(root.at, "", f'missing "{_KEY}"')
        for place in self._items(root, _FREEZES, report):
            freeze = read_freeze(place, report)
            if freeze is not None:
                self.freezes.append((freeze, place, report))
        for place in self._items(root, _KEY, report):
            entry = read_entry(place, report, self._vocabulary)
            if entry is not None:
                self.entries.append(entry)

    def _items(self, root: Node, key: str, report: Report) -> Iterator[Place]:
        """The entries of one list, each named by its own name where it has one."""
        listed = _list_of(root, key, report)
        if listed is None:
            return
        if not listed.items:
            report.warning(listed.at, key, "the list is empty")
        for number, node in enumerate(listed.items):
            name = _name_of(node)
            place = Place(node, name or join_path(key, number), node.at)
            if name:
                self._refuse_second(key, name, place, report)
            yield place

    def _refuse_second(self, key: str, name: str, place: Place, report: Report) -> None:
        named = place.child("name") or place
        here = "{}:{}:{}".format(report.file, *named.at)
        first = self._named.setdefault((key, name), here)
        if first is not here:
            report.problem(named.at, join_path(place.path, "name"), f'"{name}" is already the name of {first}')


def _let_go(root: Node) -> None:
    """Free the entries one by one: a file with thousands of them, freed at once, lets no other thread run meanwhile."""
    for listed in root.fields.values():
        for entries in (listed.items, listed.value):
            while isinstance(entries, list) and entries:
                entries.pop()


def _name_of(node: Node) -> str:
    name = node.value.get("name") if isinstance(node.value, dict) else None
    return name if isinstance(name, str) else ""


def _list_of(root: Node, key: str, report: Report) -> Node | None:
    listed = root.child(key)
    if listed is None:
        return None
    if not isinstance(listed.value, list):
        report.problem(listed.at, key, f"must be a list, not {show(listed.value)}")
        return None
    return listed
