"""Finds the entries whose matchers hold without trying each: cost per alert stays flat as the catalog grows.

An entry is filed under its rarest equality condition, and there by the values of its other equality conditions, so that
one look-up answers them all. The other conditions (regular expressions, negations) are tried one by one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from app.catalog.matchers import Matcher, Op

T = TypeVar("T")
_Entry = tuple[int, tuple[Matcher, ...]]  # its place in the catalog, the matchers that are still to be tried
_Table = dict[tuple[str, ...], dict[tuple[str, ...], list[_Entry]]]  # label names → their values → entries

# A longer list of alternatives is tried as a regular expression: filing it would cost more memory than it saves time.
_MAX_ALTERNATIVES = 64


class MatcherIndex(Generic[T]):
    """Immutable; answers in the order in which the entries were given."""

    def __init__(self, entries: Sequence[tuple[tuple[Matcher, ...], T]]) -> None:
        self._values = [value for _, value in entries]
        self._by_value: dict[tuple[str, str], _Table] = {}
        self._by_name: dict[str, list[_Entry]] = defaultdict(list)
        self._rest: list[_Entry] = []
        rarity = Counter(place for matchers, _ in entries for matcher in matchers for place in _places(matcher))
        for number, (matchers, _) in enumerate(entries):
            self._file(number, matchers, rarity)

    def match(self, labels: Mapping[str, str]) -> tuple[T, ...]:
        """The values whose matchers all hold."""
        found = [
            number
            for number, matchers in self._candidates(labels)
            if all(matcher.matches(labels) for matcher in matchers)
        ]
        return tuple(self._values[number] for number in sorted(found))

    def _candidates(self, labels: Mapping[str, str]) -> Iterator[_Entry]:
        for place in labels.items():
            for names, table in self._by_value.get(place, {}).items():
                yield from table.get(tuple(labels.get(name, "") for name in names), ())
            if place[1]:
                yield from self._by_name.get(place[0], ())
        yield from self._rest

    def _file(self, number: int, matchers: tuple[Matcher, ...], rarity: Counter[tuple[str, str]]) -> None:
        anchors = [matcher for matcher in matchers if _places(matcher)]
        if anchors:
            anchor = min(anchors, key=lambda matcher: sum(rarity[place] for place in _places(matcher)))
            self._file_under(anchor, number, [matcher for matcher in matchers if matcher is not anchor])
            return
        needed = next((matcher.name for matcher in matchers if matcher.needs_label), None)
        (self._rest if needed is None else self._by_name[needed]).append((number, matchers))

    def _file_under(self, anchor: Matcher, number: int, others: list[Matcher]) -> None:
        equal = {m.name: m for m in sorted(others, key=lambda m: m.name) if m.op is Op.EQUAL}
        tried = tuple(matcher for matcher in others if equal.get(matcher.name) is not matcher)
        values = tuple(matcher.value for matcher in equal.values())
        for place in _places(anchor):
            table = self._by_value.setdefault(place, {})
            table.setdefault(tuple(equal), {}).setdefault(values, []).append((number, tried))


def _places(matcher: Matcher) -> list[tuple[str, str]]:
    literals = matcher.literals
    return [(matcher.name, literal) for literal in literals] if len(literals) <= _MAX_ALTERNATIVES else []
