"""Words for lists of names and for the name that was probably meant; used by everything that reports a problem."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MAX_LISTED = 20


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean "url"?`` for the nearest known name, or nothing."""
    known = list(known)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    near = near or [candidate for candidate in known if candidate.lower() == name.lower()]
    return f'; did you mean "{near[0]}"?' if near else ""


def listed(names: Iterable[str]) -> str:
    """``a, b, c``, shortened when there are very many."""
    names = list(names)
    rest = len(names) - _MAX_LISTED
    shown = ", ".join(names[:_MAX_LISTED]) or "none"
    return f"{shown} and {rest} more" if rest > 0 else shown
