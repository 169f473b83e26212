"""Writes values of an alert into PromQL: app.catalog.escaping uses it.

Follows the author's text as Prometheus' lexer does, so far as to know where a value stands: within a string (with its
quote and its matcher), within a comment, or outside. https://prometheus.io/docs/prometheus/latest/querying/basics/
"""

from __future__ import annotations

import re

_QUOTES = frozenset("\"'`")
_WORD = re.compile(r"[A-Za-z0-9_:.]*\Z")  # a value outside of strings would be joined to these
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DURATION = re.compile(r"([0-9]+(ms|[smhdwy]))+")
_IDENTIFIER = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_KEYWORDS = frozenset(
    {
        *("and", "atan2", "bool", "by", "end", "fill", "fill_left", "fill_right", "group_left", "group_right"),
        *("ignoring", "inf", "nan", "offset", "on", "or", "start", "unless", "without"),
    }
)
_HARMLESS = re.compile(r"[A-Za-z0-9_ -]*")  # means itself in a regular expression and in a replacement, too
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
# A regular expression (RE2) up to a place where the next character stands for itself.
_ELEMENTS = re.compile(
    r"(?:\\x[0-9A-Fa-f]{2}|\\x\{[0-9A-Fa-f]+\}|\\[pP](?:\{\^?\w+\}|[A-Z])|\\[^xpPQ0-9]|\\0[0-7]{2}"
    r"|\\Q(?:(?!\\E).)*+\\E|\[\^?+\]?+(?:\\.|\[:\w+:\]|[^\]\\])*+\]|\(\?[A-Za-z-]*[:)]|\(\?P?<\w+>|\((?!\?)"
    r"|\{[0-9]+(?:,[0-9]*)?\}|[^\\\[({])*+",
    re.DOTALL,
)


class PromqlEscaper:
    """One expression in the making."""

    def __init__(self) -> None:
        self._quote = ""  # of the string that is open
        self._comment = False
        self._escaped = False  # the last character of the string was a backslash
        self._braces = 0
        self._before = ""  # the last token outside of strings: a word, or the operator before a string
        self._regex = False  # the string belongs to =~ or !~
        self._unread = ""  # of the regular expression, since the last value

    def literal(self, text: str) -> str:
        """Take in the author's text."""
        for char in text:
            if self._comment:
                self._comment = char not in "\r\n"
            elif self._quote:
                self._within(char)
            else:
                self._outside(char)
        return text

    def _within(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
            # The string's own escapes: the regular expression gets their meaning.
            self._unread += char if char in "\\\"'" else f"\\{char}"
        elif char == "\\" and self._quote != "`":
            self._escaped = True
        elif char == self._quote:
            self._quote = self._before = self._unread = ""
        else:
            self._unread += char

    def _outside(self, char: str) -> None:
        if char in _QUOTES:
            self._quote, self._regex = char, self._before.rstrip().endswith(("=~", "!~"))
            self._unread = ""
        elif char == "#":
            self._comment = True
        else:
            self._braces += {"{": 1, "}": -1}.get(char, 0)
            self._before = (self._before + char)[-256:]

    def value(self, text: str) -> str:
        """A value as it can stand here; raises ValueError where it cannot."""
        if self._quote:
            return self._in_string(text)
        if self._comment:
            raise ValueError("no value can stand in a comment of PromQL")
        self._refuse_bare(text)
        self._before = (self._before + text)[-256:]
        return text

    def _in_string(self, text: str) -> str:
        if self._escaped:
            raise ValueError("no value can stand after a backslash of a PromQL string")
        if self._regex:
            text = self._of_regex(text)
        elif self._braces < 1 and not _HARMLESS.fullmatch(text):
            raise ValueError(f"{text[:60]!r} cannot stand in a string of PromQL that no label is compared with")
        if self._quote == "`":
            if "`" in text:
                raise ValueError("a value with ` cannot stand in a string between `")
            return text
        return "".join(map(self._written, text))

    def _of_regex(self, text: str) -> str:
        """The value as a regular expression that matches only itself."""
        if not text:
            raise ValueError("an empty value cannot stand in a regular expression: it would mean more than any other")
        if not _ELEMENTS.fullmatch(self._unread):
            raise ValueError("no value can stand within [...], {...}, (?...) or an escape of a regular expression")
        self._unread = ""
        return _META.sub(r"\\\g<0>", text)

    def _written(self, char: str) -> str:
        """One character as Prometheus reads it in this string."""
        if char in {"\\", self._quote}:
            return f"\\{char}"
        if char.isprintable() and char != "\N{REPLACEMENT CHARACTER}":
            return char
        number = ord(char)
        if 0xD800 <= number <= 0xDFFF:  # noqa: PLR2004 - surrogates
            raise ValueError("a value that is no valid Unicode cannot stand in PromQL")
        return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"  # noqa: PLR2004

    def _refuse_bare(self, text: str) -> None:
        """Outside of strings a value is a number, a duration or a name; its place decides which."""
        word = _WORD.search(self._before)
        joined = word[0] if word else ""
        if joined:
            fits = re.fullmatch("[0-9]+" if joined[0].isdigit() or joined[0] == "." else "[A-Za-z0-9_:]+", text)
            fits = fits if (joined + text).lower() not in _KEYWORDS else None
        else:
            before = self._before.rstrip()
            fits = _NUMBER.fullmatch(text) or _DURATION.fullmatch(text)
            if before[-1:] not in set("=<>!+-*/%^[@"):
                fits = fits or (_IDENTIFIER.fullmatch(text) if text.lower() not in _KEYWORDS else None)
        if not fits:
            raise ValueError(
                f"{text[:60]!r} cannot stand here in PromQL; outside of quotes a value is a number or a name"
            )
