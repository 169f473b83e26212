"""Reads one YAML file into plain values that remember where they stood.

The loader calls it for each file. YAML 1.2's core schema: `no` and `1:30` are text. Only events of the parser are used
(no constructor of PyYAML, so no tag can make an object), nesting and aliases are bounded, and it never raises: each
fault becomes a problem with its position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import yaml

MAX_DEPTH = 64
MAX_FROM_ALIASES = 100_000
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml where it is built in
_CORE = "tag:yaml.org,2002:"
_TYPED_START = frozenset("-+.0123456789~nNtTfF")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())}
_INT = re.compile(r"[-+]?[0-9]{1,300}|0o[0-7]{1,300}|0x[0-9a-fA-F]{1,300}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_MAX_INT = 2**63 - 1
_BASES = {"0o": 8, "0x": 16}


# Line and column, 1-based. A plain tuple, because the garbage collector need not look at it again and again.
Position = tuple[int, int]
_NO_KEYS: Mapping[str, Position] = MappingProxyType({})
_NO_FIELDS: Mapping[str, Node] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with the YAML itself."""

    at: Position
    message: str


@dataclass(slots=True)
class Node:
    """A value with its position and those of everything within it."""

    value: Any
    at: Position
    keys: Mapping[str, Position] = field(default_factory=lambda: _NO_KEYS)
    fields: Mapping[str, Node] = field(default_factory=lambda: _NO_FIELDS)
    items: Sequence[Node] = ()

    def child(self, key: str | int) -> Node | None:
        """The node of a key or an index, if it is there."""
        if isinstance(key, str):
            return self.fields.get(key)
        return self.items[key] if 0 <= key < len(self.items) else None


_NO_QUOTES = 'a template is a text in quotes, as in "{{ labels.pod }}": without them YAML takes its braces for its own'


class _StopError(Exception):
    def __init__(self, at: Position, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(at, message)


def read_document(content: bytes) -> tuple[Node | None, list[Problem]]:
    """Return the only document of a file (None if it is empty or broken) and its problems."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        return None, [Problem(_position_of(before, len(before)), "not UTF-8; save the file as UTF-8")]
    composer = _Composer(text)
    try:
        node = composer.document()
    except _StopError as stop:
        return None, [*composer.problems, stop.problem]
    except yaml.reader.ReaderError as error:
        at = _position_of(text, error.position if isinstance(error.position, int) else 0)
        return None, [*composer.problems, Problem(at, "a control character is not allowed")]
    except yaml.MarkedYAMLError as error:
        return None, [*composer.problems, _syntax_problem(error, text)]
    return node, composer.problems


class _Composer:
    """Builds nodes from the parser's events."""

    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0
        self._from_aliases = 0

    def document(self) -> Node | None:
        root = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _StopError(_at(event), 'a second document begins; one file holds one list "remediations"')
                root = self._node(next(self._events), 0)
        return None if root is None or root.value is None else root

    def _node(self, event: Any, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise _StopError(_at(event), f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._count
        self._count += 1
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._scalar(event), _at(event))
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(event, depth)
        else:
            node = self._sequence(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._count - before)
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise _StopError(_at(event), f'nothing before this is named "&{event.anchor}"')
        node, size = self._anchors[event.anchor]
        self._count += size
        self._from_aliases += size
        if self._from_aliases > MAX_FROM_ALIASES:
            raise _StopError(_at(event), f"aliases repeat more than {MAX_FROM_ALIASES} values")
        return node

    def _mapping(self, event: Any, depth: int) -> Node:
        self._refuse_tag(event, "map")
        keys: dict[str, Position] = {}
        fields: dict[str, Node] = {}
        for key in self._until(yaml.MappingEndEvent):
            name = self._key(key)
            value = self._node(next(self._events), depth + 1)
            if name == "<<" and key.implicit[0]:
                self._problem(key, 'merge keys ("<<") are not supported; an alias can only stand for a whole value')
                continue
            if name in keys:
                line, column = keys[name]
                self._problem(key, f'"{name}" is given twice; first in line {line}, column {column}')
                continue
            keys[name], fields[name] = _at(key), value
        return Node({name: value.value for name, value in fields.items()}, _at(event), keys, fields)

    def _key(self, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            is_template = isinstance(event, yaml.MappingStartEvent) and event.flow_style
            raise _StopError(_at(event), _NO_QUOTES if is_template else "a key must be a text")
        return str(event.value)

    def _sequence(self, event: Any, depth: int) -> Node:
        self._refuse_tag(event, "seq")
        items = [self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        return Node([item.value for item in items], _at(event), items=items)

    def _until(self, end: type) -> Iterator[Any]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event

    def _scalar(self, event: Any) -> Any:
        if event.tag in {None, "!"}:
            return self._plain(event) if event.implicit[0] else event.value
        name = str(event.tag).removeprefix(_CORE)
        if name == "str":
            return event.value
        if name not in _TYPES:
            self._refuse_tag(event, "")
            return event.value
        value = self._plain(event)
        if not isinstance(value, _TYPES[name]):
            self._problem(event, f'"{event.value}" is no {name}')
        return value

    def _plain(self, event: Any) -> Any:
        text: str = event.value
        if text and text[0] not in _TYPED_START:
            return text
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _INT.fullmatch(text):
            return self._bounded(event, int(text, _BASES.get(text[:2], 10)))
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        return text

    def _bounded(self, event: Any, number: int) -> int:
        """Beyond these no database and no other language holds a whole number."""
        if not -_MAX_INT <= number <= _MAX_INT:
            self._problem(event, f"the number is too large; whole numbers go from -{_MAX_INT} to {_MAX_INT}")
            return 0
        return number

    def _refuse_tag(self, event: Any, own: str) -> None:
        if event.tag not in {None, "!", f"{_CORE}{own}"}:
            self._problem(event, f'the tag "{event.tag}" is not supported')

    def _problem(self, event: Any, message: str) -> None:
        self.problems.append(Problem(_at(event), message))


_TYPES: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}


def _at(event: Any) -> Position:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _position_of(text: str, index: int) -> Position:
    return (text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem((1, 1), f"not YAML: {error.problem}")
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        return Problem((mark.line + 1, indent.index("\t") + 1), "a tab cannot indent YAML; use spaces")
    context = f" {error.context}" if error.context else ""
    if context and error.context_mark is not None:
        context += f" that begins in line {error.context_mark.line + 1}, column {error.context_mark.column + 1}"
    return Problem((mark.line + 1, mark.column + 1), f"not YAML: {error.problem}{context}")
