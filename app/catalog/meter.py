"""The budget of the templates of one step: every value that they read or make is charged to it.

app.catalog.sandbox charges the values that expressions touch. The charge of a collection counts everything within it,
each time that it is reached, so nothing can be folded into a small one.
"""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jinja2

MAX_TEXT = 64 * 1024  # characters of any text that an expression makes
_BUDGET = 1024 * 1024  # characters and elements of all that the templates of one step read and make
_VALUE = 4  # the cost of any value besides its characters
_ROUND = 256  # the cost of a round of a loop besides
_MAX_NUMBER = 2**63
_COLLECTIONS = (list, tuple, set, KeysView, ValuesView, ItemsView)


class _Budget:
    """The rest of a rendering's budget."""

    def __init__(self, size: int) -> None:
        self.left = size

    def spend(self, size: int) -> None:
        """Take so much; raises where it is not there."""
        self.left -= size
        if self.left < 0:
            raise jinja2.TemplateRuntimeError("the template reads or makes too much text")


_budget: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def metered() -> Iterator[None]:
    """Give one budget to everything rendered in this block."""
    token = _budget.set(_Budget(_BUDGET))
    try:
        yield
    finally:
        _budget.reset(token)


def charge(*values: object) -> None:
    """Charge values with everything within them; stops at the budget's end, so that it costs no more itself."""
    budget = _budget.get()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        budget.spend(_VALUE + (len(value) if isinstance(value, str) else 0))
        if isinstance(value, Mapping):
            waiting.extend(value.keys())
            waiting.extend(value.values())
        elif isinstance(value, _COLLECTIONS):
            waiting.extend(value)


def bounded(value: Any) -> Any:
    """A value that an expression has made, charged; raises where it is too large for any use."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise jinja2.TemplateRuntimeError(f"a text is longer than {MAX_TEXT} characters")
    elif isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < _MAX_NUMBER):
        raise jinja2.TemplateRuntimeError("a number is too large")
    charge(value)
    return value


def text_of(value: object) -> str:
    """Return the text of a value with one obvious text; raises for collections, methods, nothing and missing values."""
    if isinstance(value, str):
        return value
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises, and names the present ones
    if isinstance(value, int | float):
        return str(value)
    raise jinja2.TemplateRuntimeError(f"an expression gives {_kind(value)} where a text is needed")


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return "a method without its ()" if callable(value) else "a collection"


def afford(length: int) -> None:
    """Refuse a text before it is made."""
    if length > MAX_TEXT:
        raise jinja2.TemplateRuntimeError(f"a text is longer than {MAX_TEXT} characters")


def spend_round() -> None:
    """Charge a round of a loop."""
    _budget.get().spend(_ROUND)
