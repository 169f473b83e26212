"""Writes values of an alert into text of a language, so that they stay values: PromQL, patterns, URLs.

The author's text goes through unchanged and tells where a value stands; the value is escaped for that place, or refused
with ValueError where no escape exists. One object serves one rendering.
"""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import quote

from app.catalog.promql import PromqlEscaper
from app.domain.texts import Text

_HOST = re.compile(r"[A-Za-z0-9._-]+")
_PLACE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")  # a whole host, with its port
_AUTHORITY_ENDS = "/?#\\"
_GLOB_MARKS = re.compile(r"[*?\[\]\\]")
_PATTERN_MARKS = re.compile(r"[*?\[]")
# A pattern with no class left open, and no backslash that waits for its character. In a glob a range may
# end with a bracket; in Python's fnmatch a bracket may be the first of a class.
_GLOB_CLOSED = re.compile(r"(?:\\.|\[\^?+(?>\\.|[^\]\\]-.|[^\]\\])*+\]|[^\[\\])*+", re.DOTALL)
_PATTERN_CLOSED = re.compile(r"(?:\[!?+\]?+[^\]]*+\]|[^\[])*+", re.DOTALL)


class Escaper(Protocol):
    """One text in the making."""

    def literal(self, text: str) -> str:
        """Take in the author's text."""

    def value(self, text: str) -> str:
        """A value as it can stand here; raises ValueError where it cannot."""


class _Plain:
    """Text without marks."""

    def literal(self, text: str) -> str:
        """Unchanged."""
        return text

    def value(self, text: str) -> str:
        """Unchanged."""
        return text


class _Literal(_Plain):
    """Text that only the author writes."""

    def value(self, text: str) -> str:  # noqa: ARG002 - none is taken
        """Refused."""
        raise ValueError("no value can stand in this text: write it out")


class _Pattern:
    """A pattern whose marks are escaped; a class, where they have another meaning, takes no value."""

    def __init__(self, marks: re.Pattern[str], escaped: str, closed: re.Pattern[str]) -> None:
        self._marks = marks
        self._escaped = escaped
        self._closed = closed
        self._unread = ""

    def literal(self, text: str) -> str:
        """Unchanged."""
        self._unread += text
        return text

    def value(self, text: str) -> str:
        """Matches only itself."""
        if not self._closed.fullmatch(self._unread):
            raise ValueError("no value can stand within [...] or after a backslash of a pattern")
        self._unread = ""
        _refuse_empty(text, "a pattern")
        return self._marks.sub(self._escaped, text)


class _Url:
    """A URL: a value is a host where the host stands, else one part of the path or of the query."""

    def __init__(self) -> None:
        self._head = ""  # as far as the host goes
        self._in_host = True
        self._in_path = True
        self._whole = False  # the last value was a host with its port

    def literal(self, text: str) -> str:
        """Unchanged; raises ValueError after a port, where a host cannot go on."""
        if self._whole and text[:1] not in {*_AUTHORITY_ENDS, ""}:
            raise ValueError("a value with a port must be the whole host of a URL")
        self._whole = self._whole and not text
        if self._in_host:
            self._head += text
            _, slashes, rest = self._head.partition("://")
            self._in_host = not slashes or not any(end in rest for end in _AUTHORITY_ENDS)
        self._in_path = self._in_path and not ({"?", "#"} & {*text})
        return text

    def value(self, text: str) -> str:
        """Percent-encoded, but for the dots and the port of a host."""
        if self._in_host:
            return self._host(text)
        if self._in_path:
            _refuse_empty(text, "the path of a URL")
        return text if isinstance(text, Quoted) else quote(text, safe="", errors="strict")

    def _host(self, text: str) -> str:
        _, slashes, rest = self._head.partition("://")
        if not slashes:
            raise ValueError("a URL must begin with http:// or https://, written out")
        if self._whole or not (_HOST.fullmatch(text) or (not rest and _PLACE.fullmatch(text))):
            raise ValueError(f"{text[:60]!r} cannot stand in the host of a URL")
        self._whole = not _HOST.fullmatch(text)
        self._head += text
        return text


class Value(str):
    """The value of an expression in a template, beside the author's own text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Quoted(Value):
    """The value of the filter `urlencode`: a URL takes it unchanged. A text made from it is plain again."""

    __slots__ = ()


def _refuse_empty(text: str, place: str) -> None:
    if not text:
        raise ValueError(f"an empty value cannot stand in {place}: it would mean more than any other")


def escaper(kind: Text) -> Escaper:
    """Writes values into a text of this kind."""
    match kind:
        case Text.PROMQL:
            return PromqlEscaper()
        case Text.GLOB:
            return _Pattern(_GLOB_MARKS, r"\\\g<0>", _GLOB_CLOSED)
        case Text.PATTERN:
            return _Pattern(_PATTERN_MARKS, r"[\g<0>]", _PATTERN_CLOSED)
        case Text.URL:
            return _Url()
        case Text.LITERAL:
            return _Literal()
        case Text.PLAIN:
            return _Plain()
