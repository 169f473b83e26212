"""Redis' glob matching, as `stringmatchlen` of its util.c does it, to hold patterns against without a server."""

from __future__ import annotations


def redis_matches(pattern: str, text: str) -> bool:
    """Whether Redis finds that the text matches the pattern."""
    while pattern and text:
        mark = pattern[0]
        if mark == "*":
            pattern = pattern.lstrip("*")
            return not pattern or any(redis_matches(pattern, text[at:]) for at in range(len(text) + 1))
        if mark == "[":
            matched, pattern = _in_class(pattern[1:], text[0])
            if not matched:
                return False
        else:
            if mark == "\\" and len(pattern) > 1:
                pattern = pattern[1:]
            if mark != "?" and pattern[0] != text[0]:
                return False
            pattern = pattern[1:]
        text = text[1:]
    return not pattern.lstrip("*") and not text


def _in_class(pattern: str, char: str) -> tuple[bool, str]:
    negated = pattern[:1] == "^"
    pattern = pattern[negated:]
    found = False
    while pattern:
        if pattern[0] == "\\" and len(pattern) > 1:
            found, pattern = found or pattern[1] == char, pattern[2:]
        elif pattern[0] == "]":
            return found != negated, pattern[1:]
        elif len(pattern) > 2 and pattern[1] == "-":
            low, high = sorted((pattern[0], pattern[2]))
            found, pattern = found or low <= char <= high, pattern[3:]
        else:
            found, pattern = found or pattern[0] == char, pattern[1:]
    return found != negated, pattern
