"""Remembers logged messages, so that a message that comes again and again is logged once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Once:
    """A bounded memory of keys; it forgets the key first that it has not met for longest."""

    def __init__(self, size: int = 1024) -> None:
        self._size = size
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def first(self, *key: Hashable) -> bool:
        """Whether this key is met for the first time."""
        known = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return not known
