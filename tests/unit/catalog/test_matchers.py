"""Matchers: Alertmanager's syntax and semantics."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.matchers import Matcher, MatcherError, Op

# What RE2 and Python's re agree on, so that the latter can be the oracle.
_ATOMS = st.one_of(st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", "(?:a|b)", "é"]))
_PATTERNS = st.lists(st.tuples(_ATOMS, st.sampled_from(["", "*", "+", "?"])).map("".join), min_size=0, max_size=4).map(
    "".join
)
_ALTERNATIVES = st.lists(_PATTERNS, min_size=1, max_size=3).map("|".join)
_VALUES = st.text(alphabet="abcé\n", max_size=4)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('alertname="ServiceDown"', ("alertname", Op.EQUAL, "ServiceDown")),
        ("alertname=ServiceDown", ("alertname", Op.EQUAL, "ServiceDown")),
        ('  job  !=  "a b"  ', ("job", Op.NOT_EQUAL, "a b")),
        ('job=~"a|b"', ("job", Op.REGEX, "a|b")),
        ("job!~a.*", ("job", Op.NOT_REGEX, "a.*")),
        ('"my label"="x"', ("my label", Op.EQUAL, "x")),
        ('größe="ü"', ("größe", Op.EQUAL, "ü")),
        ('"a\\"b"="c\\\\d\\ne"', ('a"b', Op.EQUAL, "c\\d\ne")),
        (r'instance=~"10\.0\..*"', ("instance", Op.REGEX, r"10\.0\..*")),
        ('job=""', ("job", Op.EQUAL, "")),
        ('job="{a=b}, c"', ("job", Op.EQUAL, "{a=b}, c")),
        ("a.b/c:d=e-f", ("a.b/c:d", Op.EQUAL, "e-f")),
    ],
)
def test_a_matcher_is_read_as_alertmanager_reads_it(text: str, expected: tuple[str, Op, str]) -> None:
    """Quoted and bare names and values, escapes, spaces, UTF-8."""
    matcher = Matcher.parse(text)
    assert expected == (matcher.name, matcher.op, matcher.value)


@pytest.mark.parametrize(
    ("text", "position"),
    [("", 0), ("   ", 3), ("job", 3), ("job ~ x", 4), ('job="x', 4), ('job="x" y', 8), ('a="b",c="d"', 5), ("a=~[", 3)],
)
def test_an_error_says_where(text: str, position: int) -> None:
    """The position is that of the first character that does not fit."""
    with pytest.raises(MatcherError) as caught:
        Matcher.parse(text)
    assert position == caught.value.position


@given(_TEXT.filter(bool), st.sampled_from([Op.EQUAL, Op.NOT_EQUAL]), _TEXT)
def test_a_matcher_is_written_as_it_is_read(name: str, op: Op, value: str) -> None:
    """Any name and value survive being written and read."""
    matcher = Matcher(name, op, value)
    assert matcher == Matcher.parse(str(matcher))


@given(_TEXT)
def test_any_text_is_a_matcher_or_a_matcher_error(text: str) -> None:
    """Nothing else is ever raised, and the position lies within the text."""
    assert 0 <= _position_of_error(text) <= len(text)


def _position_of_error(text: str) -> int:
    try:
        Matcher.parse(text)
    except MatcherError as error:
        return error.position
    return 0


@given(_ALTERNATIVES, _VALUES)
def test_regular_expressions_are_anchored_at_both_ends(pattern: str, value: str) -> None:
    """As an oracle says that is independent of RE2; a dot does not match a line feed, as in Go."""
    expected = re.fullmatch(pattern, value) is not None
    assert expected == Matcher.parse(f'x=~"{pattern}"').matches({"x": value})
    assert expected != Matcher.parse(f'x!~"{pattern}"').matches({"x": value})


@given(st.sampled_from(list(Op)), _VALUES.map(re.escape), st.dictionaries(st.sampled_from("xy"), _VALUES))
def test_a_missing_label_is_an_empty_one(op: Op, value: str, labels: Mapping[str, str]) -> None:
    """For every operator, an alert without the label is the alert with the label empty."""
    matcher = Matcher.parse(str(Matcher("x", op, value)))
    assert matcher.matches({"x": "", **labels}) == matcher.matches(labels)


@pytest.mark.parametrize(
    ("text", "literals"),
    [
        ('a="x"', {"x"}),
        ('a=~"x|y-1|z/2"', {"x", "y-1", "z/2"}),
        ('a=""', set()),
        ('a=~"x|"', set()),
        ('a=~"x.y|z"', set()),
        ('a!="x"', set()),
        ('a!~"x|y"', set()),
    ],
)
def test_plain_alternatives_are_a_set_of_values(text: str, literals: set[str]) -> None:
    """What the index may look up instead of trying it."""
    assert literals == Matcher.parse(text).literals


@given(st.lists(st.text(alphabet="ab-/ .|", min_size=1, max_size=3), min_size=1, max_size=3).map("|".join), _VALUES)
def test_a_set_of_values_matches_what_the_expression_matches(pattern: str, value: str) -> None:
    """The short cut and the expression never disagree."""
    matcher = Matcher.parse(f'x=~"{pattern}"')
    if matcher.literals:
        assert (value in matcher.literals) == matcher.matches({"x": value})
        assert all(matcher.matches({"x": literal}) for literal in matcher.literals)


def test_an_expression_takes_linear_time() -> None:
    """What makes a backtracking engine hang is answered at once; the time-out of the test would tell."""
    assert not Matcher.parse('x=~"(a*)*b"').matches({"x": "a" * 50_000})


def test_a_value_that_is_no_utf_8_matches_without_an_error() -> None:
    """A lone surrogate, which JSON can spell, is a character like any other."""
    assert Matcher.parse('x=~".+"').matches({"x": "\ud800"})
