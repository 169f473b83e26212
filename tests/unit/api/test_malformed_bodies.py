"""Whatever is sent to the webhook gets a right answer; never a 500. Bodies are real ones, broken in every way."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.alerts import parse_notification
from app.domain.episodes import EpisodeRules, receive
from app.store.db.schema import Timestamp
from tests.support.edge import NOW, Edge

CAPTURES = [
    json.loads(file.read_text(encoding="utf-8"))["body"]
    for file in sorted((Path(__file__).parents[2] / "testdata" / "notifications").glob("*.json"))
]
PROFILE = os.environ.get("REMEDIATOR_HYPOTHESIS", "short")
SHARES = 3  # the profile's number of examples is divided over the tests
Place = tuple[str | int, ...]


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """The way to every value of a body."""
    yield here
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*here, key))


PLACES = [(body, place) for body in CAPTURES for place in places(body)]
TIMES = st.one_of(
    st.datetimes().map(lambda time: time.isoformat()),
    st.datetimes().map(lambda time: f"{time.isoformat()}Z"),
    st.tuples(st.datetimes(), st.integers(0, 23)).map(lambda pair: f"{pair[0].isoformat()}-{pair[1]:02d}:59"),
    st.tuples(st.datetimes(), st.integers(0, 23)).map(lambda pair: f"{pair[0].isoformat()}+{pair[1]:02d}:59"),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), TIMES, st.just("x" * 10_000)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=8,
)
GONE = object()


@st.composite
def broken(draw: st.DrawFn) -> Any:
    """A captured body with some of its values replaced, added to, or gone."""
    body, _ = draw(st.sampled_from(PLACES))
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from([place for place in places(body) if place] or [()]))
        if not place:
            return draw(JSON)
        parent = body
        for key in place[:-1]:
            parent = parent[key]
        value = draw(st.one_of(st.just(GONE), JSON))
        if value is GONE:
            del parent[place[-1]]
        else:
            parent[place[-1]] = value
    return body


@st.composite
def torn(draw: st.DrawFn) -> bytes:
    """A captured body with bytes cut out and others put in."""
    body = json.dumps(draw(st.sampled_from(CAPTURES))).encode()
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 40)))
    pieces = st.sampled_from(
        [b"\x00", b"\\u0000", b"\\ud800", b"\xff", b'"', b"}", b"[" * 500, b"NaN", b"1e999", b"\\"]
    )
    return body[:start] + draw(st.one_of(st.binary(max_size=20), pieces)) + body[end:]


def _check(edge: Edge, body: bytes) -> None:
    response = edge.notify(body)
    assert response.status_code in {202, 400, 422}, response.text
    if response.status_code == 202:
        _can_be_taken_in(body)
        return
    problem = response.json()
    assert (response.status_code, "application/problem+json") == (problem["status"], response.headers["content-type"])
    assert problem["detail"].isprintable()
    assert len(response.content) < 700


def _can_be_taken_in(body: bytes) -> None:
    """What was accepted must not fail later, where nobody can refuse it any more."""
    column = Timestamp()
    for alert in parse_notification(body).alerts:
        for episode in receive(alert, "identity", None, NOW, EpisodeRules()).written:
            for time in (episode.starts_at, episode.resolved_at or NOW):
                stored = column.process_bind_param(time, None)  # type: ignore[arg-type]
                assert time == column.process_result_value(stored, None)  # type: ignore[arg-type]
        json.dumps(alert.labels).encode()


def _share(profile: settings) -> settings:
    return settings(profile, max_examples=-(-profile.max_examples // SHARES))


@pytest.mark.timeout(3600)
@given(body=broken())
@_share(settings.get_profile(PROFILE))
def test_a_notification_with_wrong_values_is_accepted_or_refused(edge: Edge, body: Any) -> None:
    """Missing keys, wrong types and random JSON at every level."""
    _check(edge, json.dumps(body).encode())


@pytest.mark.timeout(3600)
@given(body=torn())
@_share(settings.get_profile(PROFILE))
def test_a_torn_notification_is_accepted_or_refused(edge: Edge, body: bytes) -> None:
    """Bytes are missing, changed or put in."""
    _check(edge, body)


@pytest.mark.timeout(3600)
@given(
    body=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode), JSON.map(json.dumps).map(str.encode))
)
@_share(settings.get_profile(PROFILE))
def test_anything_else_is_refused(edge: Edge, body: bytes) -> None:
    """Random bytes, text and JSON."""
    _check(edge, body)
