"""Words for people."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.plans import PlannedStep
from app.domain.wording import changes, deed, on_target, one_line, parameters, shown, table


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("redis:cache/0", " on redis:cache/0"),
        ("redis:cache\n/0", " on redis:cache /0"),
        ("none:turn/0123456789abcdef", ""),
        (None, ""),
    ],
)
def test_only_a_target_is_named(key: str | None, told: str) -> None:
    """The key of a remediation without one says nothing to people."""
    assert told == on_target(key)


def test_a_text_of_others_is_one_line_of_bounded_length() -> None:
    """A text as long as the bound is whole; a longer one says how long it was."""
    assert ("a b c", "abc", "") == (one_line("a\nb\tc"), one_line("abc", 3), one_line("", 3))
    assert "abc… (4 characters)" == one_line("abcd", 3)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a\nb", "a b"),
        (None, "nothing"),
        (True, "true"),
        (1.5, "1.5"),
        ({"max_surge": 1, "image": None}, "max surge 1, image nothing"),
        ({}, "none"),
        ([], "none"),
        ([1, "b", [2, 3]], "1, b, 2, 3"),
        ((1, 2, 3, 4, 5), "1, 2, 3, 4, 5"),
        ([1, 2, 3, 4, 5, 6, 7], "1, 2, 3, 4, 5 and 2 more"),
    ],
)
def test_a_value_is_shown_on_one_line(value: object, told: str) -> None:
    """No JSON is cut off: whole entries are left out, and counted."""
    assert told == shown(value)


def test_changes_are_told_from_what_to_what() -> None:
    """A field that was not known before, or that was more than one value, has no before."""
    step = PlannedStep(
        action="test.scale",
        summary="scale",
        before={"replicas": 3, "autoscaler": {"min_replicas": 1}, "labels": {"a": "b"}, "hosts": ["x"]},
        desired={"replicas": 5, "min_replicas": 5, "labels": {"a": "c"}, "hosts": ["y"], "note": "new"},
    )
    told = ["replicas: 3 → 5", "min replicas: 1 → 5", "labels: a c", "hosts: y", "note: new"]
    assert told == changes(step)


def test_parameters_that_hold_nothing_are_left_out() -> None:
    """Nested ones by their path; after twenty only how many more there are."""
    given: dict[str, Any] = {"url": "u", "json": {"pod": "a", "deep": {"x": 0}}, "empty": {}, "none": None, "blank": ""}
    step = PlannedStep(action="http.request", summary="send", params=given)
    assert ["with url: u", "with json.pod: a", "with json.deep.x: 0"] == parameters(step)
    for count, rest in ((20, []), (22, ["and 2 more"])):
        many = step.model_copy(update={"params": {f"p{number}": number for number in range(count)}})
        assert [f"with p{number}: {number}" for number in range(20)] + rest == parameters(many)


def test_a_table_has_columns_and_says_how_many_rows_are_left_out() -> None:
    """Each column is as wide as its widest cell."""
    rows = [{"pid": 7, "user_name": "shopkeeper"}, {"pid": 1234}]
    assert ["pid   user name", "7     shopkeeper", "1234  nothing"] == table(rows, ["pid", "user_name"])
    assert ["pid", "7", "and 1 more"] == table(rows, ["pid"], most=1)
    assert ["pid", "7", "1234"] == table(rows, ["pid"], most=2)


@pytest.mark.parametrize(
    ("planned", "state", "result", "error", "told"),
    [
        ({"summary": "scale", "before": {"replicas": 3}, "desired": {"replicas": 5}}, "succeeded", {}, None, "3 → 5"),
        ({"summary": "flush", "before": {"keys": 9}, "desired": {"keys": 0}}, "succeeded", {"keys": 2}, None, "9 → 2"),
        ({"summary": "end"}, "succeeded", {"ended": 4, "generation": 8, "written": True, "name": "x"}, None, "ended 4"),
    ],
)
def test_what_a_step_did_is_told_in_numbers(
    planned: dict[str, Any], state: str, result: dict[str, Any], error: str | None, told: str
) -> None:
    """From what to what, and of a result that was not planned the number alone."""
    assert deed(planned, state, result, error).endswith(f"{told})")


@pytest.mark.parametrize(
    ("planned", "state", "result", "error", "told"),
    [
        ({"summary": "scale", "before": {"n": 3}, "desired": {"n": 3}}, "succeeded", {"n": 3}, None, "scale"),
        ({"summary": "scale", "desired": {"n": 3}}, "succeeded", {"seen": 3, "none": 0}, None, "scale"),
        ({"summary": "scale", "before": None, "desired": None}, "succeeded", None, None, "scale"),
        ({"action": "http.request"}, "failed", None, "refused", "http.request: failed: refused"),
        ({"summary": "send", "action": "http.request"}, "started", None, None, "send: under way"),
        ({}, "skipped", None, None, "a step: it was so already"),
        ({}, "unheard-of", None, None, "a step: unheard-of"),
    ],
)
def test_a_step_without_news_is_told_by_its_summary_and_its_end(
    planned: dict[str, Any], state: str, result: dict[str, Any] | None, error: str | None, told: str
) -> None:
    """The action's name stands in for a summary that is not there."""
    assert told == deed(planned, state, result, error)
