"""Words for people about plans and results, which are JSON.

Nothing here cuts JSON off in the middle: whole entries are left out, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.domain.plans import PlannedStep

_LONGEST_VALUE = 200  # characters of a value that comes from an alert or a target
_MOST_ENTRIES = 5  # of a list
_MOST_LINES = 20  # of one step
_UNKNOWN = object()
_NO_NEWS = frozenset({"generation"})  # numbers of a result that say nothing about the change
_ENDS = {
    "skipped": "it was so already",
    "started": "under way",
    "failed": "failed",
    "interrupted": "interrupted",
}


def one_line(text: str, longest: int = _LONGEST_VALUE) -> str:
    """Text that others wrote, so that it can be no line of its own in a message."""
    line = "".join(char if char.isprintable() else " " for char in text[: longest + 1])
    return line if len(line) <= longest else f"{line[:longest]}… ({len(text)} characters)"


def on_target(key: str | None) -> str:
    """Where a run acts, to follow the name of its remediation; nothing where that has no target."""
    return "" if key is None or key.startswith("none:") else f" on {one_line(key)}"


def shown(value: object) -> str:
    """A JSON value on one line."""
    if isinstance(value, str):
        return one_line(value)
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return _some([f"{_name(name)} {shown(item)}" for name, item in value.items()])
    if isinstance(value, list | tuple):
        return _some([shown(item) for item in value])
    return json.dumps(value)


def _some(entries: Sequence[str]) -> str:
    rest = len(entries) - _MOST_ENTRIES
    told = ", ".join(entries[:_MOST_ENTRIES]) or "none"
    return f"{told} and {rest} more" if rest > 0 else told


def _name(field: object) -> str:
    return one_line(str(field)).replace("_", " ")


def changes(step: PlannedStep) -> list[str]:
    """Describe a step's changes, from the value before to the value after, and its parameters; a line for each."""
    lines = []
    for name, value in step.desired.items():
        was = _before(step.before, name)
        known = f"{shown(was)} → " if was is not _UNKNOWN and not isinstance(was, Mapping | list) else ""
        lines.append(f"{_name(name)}: {known}{shown(value)}")
    return lines


def _before(before: Mapping[str, Any], name: str) -> Any:
    """Return a field's value before, also of a field within something in `before`, such as an autoscaler's minimum."""
    below = (part[name] for part in before.values() if isinstance(part, Mapping) and name in part)
    return before[name] if name in before else next(below, _UNKNOWN)


def parameters(step: PlannedStep) -> list[str]:
    """The parameters of a step that hold something; a line for each."""
    lines = [f"with {name}: {shown(value)}" for name, value in _flat(step.params)]
    return [*lines[:_MOST_LINES], *([f"and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else [])]


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{one_line(str(name))}.")
        elif value not in (None, [], {}, ""):
            yield f"{prefix}{one_line(str(name))}", value


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], most: int = 10) -> list[str]:
    """Some of the rows under their columns, and how many more there are."""
    cells = [[_name(column) for column in columns]]
    cells += [[shown(row.get(column)) for column in columns] for row in rows[:most]]
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [*lines, *([f"and {len(rows) - most} more"] if len(rows) > most else [])]


def deed(planned: Mapping[str, Any], state: str, result: Mapping[str, Any] | None, error: str | None) -> str:
    """Describe one step on one line: its summary, its changes, and its end if it did not go well."""
    told = one_line(str(planned.get("summary") or planned.get("action") or "a step"), 500)
    if state == "succeeded":
        found = _reached(planned.get("before") or {}, planned.get("desired") or {}, result or {})
        return f"{told} ({found})" if found else told
    ended = _ENDS.get(state, state)
    return f"{told}: {ended}: {one_line(error, 500)}" if error else f"{told}: {ended}"


def _reached(before: Mapping[str, Any], desired: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return the numbers that tell the result, without values that were planned and reached, or known before."""
    found = []
    for name, value in {**desired, **result}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or name in _NO_NEWS:
            continue
        was = _before(before, name)
        if was is not _UNKNOWN and was != value:
            found.append(f"{_name(name)} {shown(was)} → {shown(value)}")
        elif was is _UNKNOWN and value and value not in desired.values():
            found.append(f"{_name(name)} {shown(value)}")
    return ", ".join(found)
