"""What a webhook body may hold."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.domain.alerts import MAX_NAME, MAX_PAIRS, MAX_VALUE, fingerprint_of, parse_notification
from tests.support.alerts import alert, notification

CAPTURED = Path(__file__).parents[2] / "testdata" / "notifications"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\u0000b", "a\ufffdb"),
        (r"\u0000\u0000", "\ufffd\ufffd"),
        (r"\\u0000", r"\u0000"),
        (r"\\\u0000", "\\\ufffd"),
        (r"\\\\u0000", r"\\u0000"),
    ],
)
def test_a_nul_becomes_the_replacement_character(written: str, read: str) -> None:
    """Only a NUL is replaced, not a text that looks like its escape."""
    body = notification(alert(text="HERE")).replace(b"HERE", written.encode())
    assert read == parse_notification(body).alerts[0].labels["text"]


def test_a_nul_in_a_name_is_replaced_too() -> None:
    """Label names are stored as well."""
    body = notification(alert(HERE="x")).replace(b"HERE", rb"a\u0000")
    assert "x" == parse_notification(body).alerts[0].labels["a\ufffd"]


def test_fields_of_later_releases_are_accepted() -> None:
    """Alertmanager adds fields without a new version."""
    body = json.loads(notification(alert())) | {"notification_reason": "repeat", "routeLabels": {}}
    assert 1 == len(parse_notification(json.dumps(body).encode()).alerts)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"version": "3"}',
        b'\xff\xfe{"version": "4"}',
        notification(alert()).replace(b"firing", b"pending"),
        notification(alert(fingerprint="NOT-HEX")),
        notification(alert(text="HERE")).replace(b"HERE", rb"\ud800"),
        b"[" * 100_000,
    ],
)
def test_what_is_no_notification_is_refused(body: bytes) -> None:
    """Nothing but a ValidationError leaves the parser."""
    with pytest.raises(ValidationError):
        parse_notification(body)


sizes = st.sampled_from([0, 1, 10, MAX_NAME, MAX_NAME + 1, MAX_VALUE, MAX_VALUE + 1, 3 * MAX_VALUE])
pairs = st.dictionaries(
    st.tuples(st.integers(0, 9), sizes).map(lambda pair: f"{pair[0]}{'n' * pair[1]}"),
    sizes.map(lambda size: "v" * size),
    max_size=4,
)


@given(st.lists(st.tuples(pairs, pairs, st.integers(0, MAX_PAIRS + 1)), min_size=1, max_size=3))
@settings(max_examples=50)
def test_no_alert_costs_another_however_large_it_is(
    made: list[tuple[dict[str, str], dict[str, str], int]],
) -> None:
    """Each is there, within the bounds; one whose labels do not fit has a defect, and annotations cost nothing."""
    given_alerts = [
        alert(annotations=annotations | {f"a{number}": "" for number in range(more)}, fingerprint=f"{index:x}")
        | {"labels": labels | {"alertname": "Down"}}
        for index, (labels, annotations, more) in enumerate(made)
    ]
    read = parse_notification(notification(*given_alerts, alert())).alerts
    assert len(made) + 1 == len(read)
    for one, (labels, _, _) in zip(read, made, strict=False):
        fits = all(len(name) <= MAX_NAME and len(value) <= MAX_VALUE for name, value in labels.items())
        assert (fits, "Down") == (not one.defect, one.labels["alertname"])
        for name, value in chain(one.labels.items(), one.annotations.items()):
            assert (len(name) <= MAX_NAME, len(value) <= MAX_VALUE) == (True, True)
        assert len(one.annotations) <= MAX_PAIRS


def test_what_is_cut_says_so() -> None:
    """In the value itself, or in an annotation of ours about those that are left out."""
    long = {"long": "x" * (MAX_VALUE + 1), "short": "y", "n" * (MAX_NAME + 1): "z"}
    (read,) = parse_notification(notification(alert(annotations=long))).alerts
    assert ("", "y") == (read.defect, read.annotations["short"])
    assert read.annotations["long"].endswith("xx… [cut: it had 65537 characters]")
    assert "1 annotations, too many or with too long names" == read.annotations["remediator_left_out"]


def test_a_long_address_of_its_rule_is_cut() -> None:
    """The alert is kept, as one with a long annotation is."""
    long = "http://prometheus/" + "x" * MAX_VALUE
    (read,) = parse_notification(notification(alert() | {"generatorURL": long})).alerts
    assert ("", long[:MAX_VALUE]) == (read.defect, read.generator_url)


def test_labels_that_do_not_fit_say_which() -> None:
    """Their number, or the one that is too long."""
    many = parse_notification(notification(alert(**{f"l{number}": "" for number in range(MAX_PAIRS)}))).alerts[0]
    long = parse_notification(notification(alert(big="x" * (MAX_VALUE + 1)))).alerts[0]
    assert ("it has 501 labels, and 500 are the most", MAX_PAIRS) == (many.defect, len(many.labels))
    assert 'the label "big" has 65537 characters, and 65536 are the most' == long.defect


def test_what_fits_exactly_is_kept_beside_what_does_not() -> None:
    """Each bound is the longest that is kept, and the one that is named is over its own."""
    exact, value = "n" * MAX_NAME, "x" * MAX_VALUE
    most = {f"l{number}": "" for number in range(MAX_PAIRS - 2)} | {"big": value + "x"}
    assert parse_notification(notification(alert(**most))).alerts[0].defect.startswith('the label "big"')
    (read,) = parse_notification(notification(alert(**{exact: "", "big": value + "x"}))).alerts
    assert f'the label "big" has {MAX_VALUE + 1} characters, and {MAX_VALUE} are the most' == read.defect
    full = {f"a{number}": "" for number in range(MAX_PAIRS - 2)} | {exact: value, "big": value + "x"}
    (read,) = parse_notification(notification(alert(annotations=full))).alerts
    assert ("", full.keys(), value) == (read.defect, read.annotations.keys(), read.annotations[exact])
    (read,) = parse_notification(notification(alert(**{exact: value, "n" * (MAX_NAME + 1): ""}))).alerts
    assert f"the name of a label has {MAX_NAME + 1} characters, and {MAX_NAME} are the most" == read.defect
    assert {"alertname": "Down", exact: value} == read.labels


def test_an_alert_that_fits_is_the_same_beside_one_that_does_not() -> None:
    """Each of its texts is as long as it may be."""
    url = "http://prometheus/".ljust(MAX_VALUE, "x")
    fits = alert(**{"n" * MAX_NAME: "x" * MAX_VALUE}) | {"generatorURL": url, "annotations": {"a": "x" * MAX_VALUE}}
    alone = parse_notification(notification(fits)).alerts[0]
    beside = parse_notification(notification(fits, alert(big="x" * (MAX_VALUE + 1)))).alerts
    assert ["", True] == [beside[0].defect, bool(beside[1].defect)]
    assert alone.model_dump() == beside[0].model_dump()
    assert url == beside[0].generator_url


@pytest.mark.parametrize("written", [1767225600, "2026-01-31", "2026-01-31 12:00:00Z", "2026-01-31T12:00:00", None])
def test_a_time_that_alertmanager_would_not_write_is_refused(written: object) -> None:
    """A number, a date, and a time without a zone are a mistake somewhere."""
    with pytest.raises(ValidationError, match="RFC 3339"):
        parse_notification(notification(alert() | {"startsAt": written}))


def test_entries_that_are_no_alerts_are_left_out_and_named() -> None:
    """By their places, which are those of the body."""
    body = json.loads(notification(alert(pod="a"), alert(), alert(pod="b"), alert()))
    body["alerts"][1] = {"status": "firing"}
    body["alerts"][3] = "no alert"
    read = parse_notification(json.dumps(body).encode())
    assert ((1, 3), 0, ["a", "b"]) == (read.unreadable, read.defects, [one.labels["pod"] for one in read.alerts])


def test_the_same_labels_are_kept_in_whichever_order_they_come() -> None:
    """The name and the namespace of the alert among them, since people look for it by these."""
    labels = {f"a{number:03}": "" for number in range(MAX_PAIRS)} | {"namespace": "shop", "alertname": "Down"}
    orders = [dict(sorted(labels.items(), reverse=reverse)) for reverse in (False, True)]
    kept = [parse_notification(notification(alert() | {"labels": one})).alerts[0].labels for one in orders]
    assert ("Down", "shop", kept[0]) == (kept[1]["alertname"], kept[1]["namespace"], kept[1])


def test_fingerprints_are_those_of_alertmanager() -> None:
    """Of every alert that one ever sent to us."""
    captured = [json.loads(file.read_text(encoding="utf-8"))["body"] for file in sorted(CAPTURED.glob("*.json"))]
    alerts = [one for body in captured for one in body["alerts"]]
    assert len(alerts) > 10
    assert [one["fingerprint"] for one in alerts] == [fingerprint_of(one["labels"]) for one in alerts]
