"""Loads a catalog from files: all of it, or none of it with every problem in every file.

Called at start, by `remediator check` and by each reload. It reads files and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from app.actions.base import Action
from app.actions.registry import actions as all_actions
from app.catalog.catalog import Catalog
from app.catalog.diagnostics import Place, Report, join_path, show, summary
from app.catalog.document import Node, read_document
from app.catalog.files import find_files, snapshot
from app.catalog.names import did_you_mean
from app.catalog.validation import Entry, Vocabulary, read_entry
from app.checks.base import Check
from app.checks.registry import checks as all_checks
from app.domain.errors import ConfigError

_START = (1, 1)
_KEY = "remediations"


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
    problems = [problem for report in reports for problem in report.problems]
    if problems:
        raise ConfigError(summary(problems), problems)
    warnings = [warning for report in reports for warning in report.warnings]
    return Catalog.of(loading.entries, seen=seen, warnings=warnings, loaded_at=now)


def _report_without_files(path: Path) -> Report:
    report = Report(str(path))
    report.warning(_START, "", "no *.yaml or *.yml file in this directory")
    return report


class _Loading:
    """What has been read so far; names must differ over all files."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.entries: list[Entry] = []
        self._vocabulary = vocabulary
        self._named: dict[str, str] = {}

    def read(self, file: str) -> Report:
        """Take in one file and say what is wrong with it."""
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
        elif not problems:
            report.warning(_START, "", "the file is empty")
        return report

    def _read_root(self, root: Node, report: Report) -> None:
        remediations = _list_of(root, report)
        if remediations is None:
            return
        if not remediations.items:
            report.warning(remediations.at, _KEY, "the list is empty")
        for number, node in enumerate(remediations.items):
            name = _name_of(node)
            place = Place(node, name or join_path(_KEY, number), node.at)
            if name:
                self._refuse_second(name, place, report)
            entry = read_entry(place, report, self._vocabulary)
            if entry is not None:
                self.entries.append(entry)

    def _refuse_second(self, name: str, place: Place, report: Report) -> None:
        named = place.child("name") or place
        here = "{}:{}:{}".format(report.file, *named.at)
        first = self._named.setdefault(name, here)
        if first is not here:
            report.problem(named.at, join_path(place.path, "name"), f'"{name}" is already the name of {first}')


def _name_of(node: Node) -> str:
    name = node.value.get("name") if isinstance(node.value, dict) else None
    return name if isinstance(name, str) else ""


def _list_of(root: Node, report: Report) -> Node | None:
    if not isinstance(root.value, dict):
        report.problem(root.at, "", f'must be a mapping with the list "{_KEY}", not {show(root.value)}')
        return None
    for key, at in root.keys.items():
        if key != _KEY:
            hint = did_you_mean(key, [_KEY]) or f'; a file holds "{_KEY}" and nothing else'
            report.problem(at, key, f'unknown field "{key}"{hint}')
    remediations = root.child(_KEY)
    if remediations is None:
        report.problem(root.at, "", f'missing "{_KEY}"')
        return None
    if not isinstance(remediations.value, list):
        report.problem(remediations.at, _KEY, f"must be a list, not {show(remediations.value)}")
        return None
    return remediations
