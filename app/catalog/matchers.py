"""Matchers as Alertmanager writes them: ``name op value`` over the labels of an alert.

The catalog parses them once, at load; the index and the engine only match. An expression is data of the catalog's
owner, never of an alert. Regular expressions are RE2's, anchored at both ends, and take linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

import re2

_RESERVED = frozenset("{}!=~,\\\"'`")
_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}
# Only letters, digits and characters that stand for themselves: such alternatives are an equality set.
_LITERALS = re.compile(r"[\w\-:/@%&#=,;<>!~\" ]+(?:\|[\w\-:/@%&#=,;<>!~\" ]+)*")
_PYTHON_ONLY = (
    (re.compile(r"\(\?<[=!]"), "lookbehind"),
    (re.compile(r"\(\?[=!]"), "lookahead"),
    (re.compile(r"\(\?>"), "atomic groups"),
    (re.compile(r"\(\?\("), "conditionals"),
    (re.compile(r"(?<!\\)(?:\\\\)*(?:\\[1-9]|\(\?P=)"), "backreferences"),
    (re.compile(r"[*+?}]\+"), "possessive repetition"),
)


class MatcherError(ValueError):
    """A matcher cannot be understood; `position` is the 0-based character where."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class Op(StrEnum):
    """How the value of a label is compared."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label; a label that the alert does not have counts as empty."""

    name: str
    op: Op
    value: str
    _regex: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Matcher:
        """Read one matcher; raises MatcherError with the place and the fault."""
        return _Parser(text).matcher()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet the condition."""
        value = labels.get(self.name, "")
        if self._regex is None:
            return (value == self.value) is (self.op is Op.EQUAL)
        found = self._regex.fullmatch(value.encode("utf-8", "replace")) is not None
        return found is (self.op is Op.REGEX)

    @property
    def needs_label(self) -> bool:
        """Whether the condition fails when the label is missing."""
        return not self.matches({})

    @property
    def literals(self) -> frozenset[str]:
        """Return the values of a set condition, one of which must hold; else empty."""
        if self.op is Op.EQUAL and self.value:
            return frozenset({self.value})
        if self.op is Op.REGEX and _LITERALS.fullmatch(self.value):
            return frozenset(self.value.split("|"))
        return frozenset()

    def __str__(self) -> str:
        name = self.name if self.name and not any(_is_special(char) for char in self.name) else _quote(self.name)
        return f"{name}{self.op}{_quote(self.value)}"


class _Parser:
    """Reads one matcher from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def matcher(self) -> Matcher:
        """The whole text as one matcher."""
        self._skip_space()
        if self._text.startswith("{", self._at):
            raise MatcherError("write one matcher per list item, without braces", self._at)
        name_at = self._at
        name = self._word("a label name")
        if not name:
            raise MatcherError("the label name is empty", name_at)
        op = self._op(name)
        self._skip_space()
        value_at = self._at
        value = self._word(f"a value in double quotes after {op}")
        self._end()
        regex = _compile(value, value_at) if op in {Op.REGEX, Op.NOT_REGEX} else None
        return Matcher(name, op, value, regex)

    def _skip_space(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _word(self, wanted: str) -> str:
        if self._text.startswith('"', self._at):
            return self._quoted()
        start = self._at
        while self._at < len(self._text) and not _is_special(self._text[self._at]):
            self._at += 1
        if self._at == start:
            found = f"found {self._text[start]!r}" if start < len(self._text) else "the text ends here"
            raise MatcherError(f"expected {wanted}; {found}", start)
        return self._text[start : self._at]

    def _quoted(self) -> str:
        start, chars = self._at, list[str]()
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == '"':
                return "".join(chars)
            if char == "\\" and self._at < len(self._text):
                escaped = self._text[self._at]
                self._at += 1
                # As Alertmanager does: a backslash before anything else stands for itself, so "10\.0" needs no "\\".
                char = _ESCAPES.get(escaped, f"\\{escaped}")
            chars.append(char)
        raise MatcherError("the closing quote is missing", start)

    def _op(self, name: str) -> Op:
        self._skip_space()
        for op in (Op.REGEX, Op.NOT_REGEX, Op.NOT_EQUAL, Op.EQUAL):
            if self._text.startswith(op, self._at):
                self._at += len(op)
                return op
        raise MatcherError(f"expected =, !=, =~ or !~ after {name!r}", self._at)

    def _end(self) -> None:
        self._skip_space()
        if self._at == len(self._text):
            return
        found = self._text[self._at]
        if found == ",":
            raise MatcherError("several matchers in one; write each as a list item of its own", self._at)
        raise MatcherError(f"unexpected {found!r}; put the whole value in double quotes", self._at)


def _is_special(char: str) -> bool:
    return char in _RESERVED or char.isspace()


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _compile(pattern: str, position: int) -> Any:
    try:
        return _regex(pattern)
    except re2.error as error:
        for feature, name in _PYTHON_ONLY:
            if feature.search(pattern):
                message = f"RE2, which Alertmanager uses too, has no {name}"
                break
        else:
            message = error.args[0].decode("utf-8", "replace")
        raise MatcherError(f"not a regular expression: {message}", position) from None


@lru_cache(maxsize=16_384)
def _regex(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    return re2.compile(pattern.encode("utf-8", "replace"), options)
