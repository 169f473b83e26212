"""Turns pydantic's findings about a value into sentences with a position, a YAML path and a suggested name.

The validation of remediations calls it. No word of pydantic's and no Python type gets through to the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.catalog.document import Node, Position
from app.catalog.fields import Loc, beside_with, unknown_field
from app.catalog.templates import contains_template
from app.domain import former_names
from app.domain.errors import Diagnostic
from app.domain.names import did_you_mean, listed

_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_LONGEST_SHOWN = 60
_LONGEST_SAID = 500


@dataclass(slots=True)
class Report:
    """Collects the problems and warnings of one file."""

    file: str
    problems: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)

    def problem(self, at: Position, path: str, message: str) -> None:
        """Something that keeps the file from being used."""
        self.problems.append(Diagnostic(self.file, *at, path, message))

    def warning(self, at: Position, path: str, message: str) -> None:
        """Something that the author probably did not mean."""
        self.warnings.append(Diagnostic(self.file, *at, path, message))


@dataclass(frozen=True, slots=True)
class Place:
    """A node of a file with the path that leads to it."""

    node: Node
    path: str
    at: Position

    @classmethod
    def root(cls, node: Node, path: str) -> Place:
        """Where a walk begins."""
        return cls(node, path, node.at)

    def child(self, key: str | int) -> Place | None:
        """The place of a key or index, if there is such."""
        node = self.node.child(key)
        if node is None:
            return None
        return Place(node, join_path(self.path, key), node.at)

    def walk(self, loc: Loc) -> tuple[Place, Loc]:
        """As far along `loc` as the file goes, and the rest of it."""
        place = self
        for depth, key in enumerate(loc):
            below = place.child(key)
            if below is None:
                return place, loc[depth:]
            place = below
        return place, ()

    def at_key(self, key: str) -> Position:
        """Where a key itself stands; the place's own position where it is missing."""
        return self.node.keys.get(key, self.at)


def join_path(path: str, key: str | int) -> str:
    """``steps[0].with["a key"]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _WORD.fullmatch(key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


@dataclass(frozen=True, slots=True)
class _Found:
    """One sentence about one place."""

    at: Position
    path: str
    message: str
    part_of_union: bool = False


def report_errors(
    report: Report,
    place: Place,
    error: ValidationError,
    subject: tuple[type[BaseModel], str],
    *,
    templates: bool = False,
) -> None:
    """Report every error at `place`; `subject` is the model with the words for it.

    `templates`: leave out errors about values that only a rendering will know.
    """
    found = []
    for details in error.errors(include_url=False):
        if _is_about_invalid_items(place, details) or _is_given_by_former_name(place, details):
            continue
        if templates and _is_about_template(place, details):
            continue
        found.append(_found(place, details, *subject))
    for item in _merge_unions(found):
        report.problem(item.at, item.path, item.message)


def _is_about_template(place: Place, details: ErrorDetails) -> bool:
    # An error of the whole is about which fields are given together, which no rendering changes.
    if details["type"] in {"missing", "extra_forbidden"} or not details["loc"]:
        return False
    here, _ = place.walk(details["loc"])
    return contains_template(here.node.value)


def _is_about_invalid_items(place: Place, details: ErrorDetails) -> bool:
    """Pydantic counts only the items that are valid; each of the others has its own error."""
    here, _ = place.walk(details["loc"])
    return details["type"] == "too_short" and len(here.node.items) >= (details.get("ctx") or {})["min_length"]


def _is_given_by_former_name(place: Place, details: ErrorDetails) -> bool:
    """That the old name is unknown says enough."""
    here, _ = place.walk(details["loc"])
    names = {former_names.FIELDS.get(name) for name in here.node.fields}
    return details["type"] == "missing" and details["loc"][-1] in names


def _found(place: Place, details: ErrorDetails, model: type[BaseModel], subject: str) -> _Found:
    loc = details["loc"]
    here, rest = place.walk(loc)
    if details["type"] == "missing":
        return _Found(here.at, here.path, f'missing "{loc[-1]}"')
    if details["type"] == "extra_forbidden":
        parent, _ = place.walk(loc[:-1])
        message = beside_with(parent.path, loc) or unknown_field(model, loc, subject)
        return _Found(parent.at_key(str(loc[-1])), here.path, message)
    said = sentence(details)
    if ".matchers[" in here.path and isinstance(details["input"], dict):
        said += '; write it as one text, such as alertname="Name"'
    return _Found(here.at, here.path, said, part_of_union=bool(rest))


def _merge_unions(found: Iterable[_Found]) -> Iterator[_Found]:
    """One sentence where pydantic has one for each member of a union."""
    pending: _Found | None = None
    for item in found:
        if pending and item.part_of_union and pending.part_of_union and item.path == pending.path:
            pending = replace(pending, message=_either(pending.message, item.message))
            continue
        if pending:
            yield pending
        pending = item
    if pending:
        yield pending


def _either(first: str, second: str) -> str:
    first_part, _, rest = first.partition(", not ")
    second_part, _, _ = second.partition(", not ")
    if not (first_part.startswith("must be ") and second_part.startswith("must be ")):
        return f"{first}, or {second}"
    joined = f"{first_part} or {second_part.removeprefix('must be ')}"
    return f"{joined}, not {rest}" if rest else joined


def sentence(details: ErrorDetails) -> str:
    """Put pydantic's finding into words for the author of the value; quotes the value."""
    context, given = details.get("ctx") or {}, details.get("input")
    wanted = _WANTED.get(details["type"])
    if wanted is not None:
        return f"must be {wanted}, not {show(given)}"
    written = _SENTENCES.get(details["type"])
    if written is not None:
        return written(context, given)
    return details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def show(value: object) -> str:
    """Return a value as the author wrote it, shortened, or the word for its type."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | dict):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = str(value)
    text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
    if not isinstance(value, str):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def _short(said: str) -> str:
    """Shorten a rule's message that quotes a long value: the rule stands at the end."""
    if len(said) <= _LONGEST_SAID:
        return said
    return f"{said[:_LONGEST_SHOWN]}...{said[_LONGEST_SHOWN - _LONGEST_SAID :]}"


def _one_of(context: dict[str, Any], given: object) -> str:
    known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    if (renamed := former_names.GUARDS.get(str(given))) in known:
        return f"{given} was renamed to {renamed}"
    return f"must be one of {listed(known)}, not {show(given)}{did_you_mean(str(given), known)}"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _too_short(context: dict[str, Any], _given: object) -> str:
    return f"must have at least {_entries(context['min_length'])}"


def _text_too_short(context: dict[str, Any], _given: object) -> str:
    least = context["min_length"]
    return "must not be empty" if least == 1 else f"must have at least {least} characters"


def _text_too_long(context: dict[str, Any], given: object) -> str:
    return f"must have at most {context['max_length']} characters, not {len(str(given))}"


_WANTED = dict.fromkeys(("string_type",), "a text")
_WANTED |= dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number")
_WANTED |= dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number")
_WANTED |= dict.fromkeys(("bool_type", "bool_parsing"), "true or false")
_WANTED |= dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "a list")
_WANTED |= dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a mapping")


_SENTENCES: dict[str, Callable[[dict[str, Any], object], str]] = {
    "enum": _one_of,
    "literal_error": _one_of,
    "too_short": _too_short,
    "too_long": lambda context, _: f"must have at most {_entries(context['max_length'])}",
    "string_too_short": _text_too_short,
    "string_too_long": _text_too_long,
    "string_pattern_mismatch": lambda context, given: f"{show(given)} does not have the form {context['pattern']}",
    "value_error": lambda context, _: _short(str(context["error"])),
    "greater_than_equal": lambda context, given: f"must be at least {context['ge']}, not {show(given)}",
    "greater_than": lambda context, given: f"must be more than {context['gt']}, not {show(given)}",
    "less_than_equal": lambda context, given: f"must be at most {context['le']}, not {show(given)}",
    "less_than": lambda context, given: f"must be less than {context['lt']}, not {show(given)}",
}


def summary(problems: Sequence[Diagnostic]) -> str:
    """``3 problems in 2 files``."""
    files = len({problem.file for problem in problems})
    return f"{counted(len(problems), 'problem')} in {counted(files, 'file')}"


def counted(count: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
