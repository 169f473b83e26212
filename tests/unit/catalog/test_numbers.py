"""Numbers and times of a catalog: whatever `check` accepts can be counted with, stored and added up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.backends.connections import Connections
from app.catalog.catalog import Catalog
from app.catalog.loader import load
from app.domain.durations import parse_duration, parse_rates
from app.domain.errors import ConfigError
from app.domain.moments import MAX_COUNT
from app.settings import load_settings
from tests.unit.catalog.vocabulary import NOW

_HUGE: list[Any] = [
    *("99999999999999999999/1h", "1/99999999y", "9" * 5000 + "/1h", "2147483648/1h", "0/1h", "5/0s", "1/100y"),
    *("99999999y", "9" * 5000 + "s", "100y", "101y", "9999999999999999999ms", "0s", "-5m", "1e9s"),
    *("9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "1969-12-31T00:00:00Z"),
    *(10**20, -(10**20), 10**300, 2**31, 2**63, -(2**63) - 1, 1e308, -1, 0, "9" * 5000, "9" * 25, "150%", "99999999%"),
    *("{{ labels.x }}", "1:99999999999", "2026:99999999999", "-99999999999:-1", "24:01", "99:99"),
]
_ENTRY: dict[str, Any] = {
    "name": "all",
    "summary": "Every number.",
    "matchers": ['alertname="Down"'],
    "mode": "approve",
    "max_age": "1d",
    "target": {"kubernetes": {"kind": "Deployment", "namespace": "shop", "name": "api"}},
    "settle": "5m",
    "effective_within": "1h",
    "revert": "on_resolved",
    "revert_after": "10m",
    "limits": {
        "cooldown": "10m",
        "rate": "3/1h",
        "target_rate": "5/1d",
        "attempts": 1,
        "max_targets": 2,
        "breaker": 3,
        "breaker_pause": "1h",
        "storm": "20/10m",
        "max_unhealthy": 3,
    },
    "earn": {"approve_after": 5, "auto_after": 5, "demote_after": 2},
    "steps": [
        {"action": "kubernetes.scale", "with": {"to": 3, "min": 1, "max": 5}, "timeout": "2m"},
        {"action": "kubernetes.scale", "with": {"by": 3, "max": 5}},
        {"action": "http.request", "with": {"url": "http://a", "expect_status": [200], "json": {"a": 1}}},
    ],
    "verify": [
        {"check": "kubernetes.ready", "with": {"min_ready": 1}, "timeout": "1m"},
        {"check": "prometheus.query", "with": {"query": "up", "op": ">", "value": 1}},
        {"check": "http.ok", "with": {"url": "http://a", "expect_status": [200]}},
    ],
}
_FREEZE: dict[str, Any] = {
    "name": "quiet",
    "summary": "x",
    "begins": "2026-01-01T00:00:00Z",
    "ends": "2026-12-01T00:00:00Z",
    "times": [{"start_time": "00:00", "end_time": "24:00"}],
    "weekdays": ["monday:sunday"],
    "days_of_month": ["1:-1"],
    "months": ["1:12"],
    "years": ["2026:2027"],
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value within a value that is no text for people."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))
    if not isinstance(value, dict | list) and path[-1] not in {"name", "summary", "url", "query", "action", "check"}:
        yield path


def _with(value: Any, path: tuple[Any, ...], item: Any) -> Any:
    changed = deepcopy(value)
    within = changed
    for key in path[:-1]:
        within = within[key]
    within[path[-1]] = item
    return changed


def _loaded(tmp_path: Path, document: Any) -> Catalog | None:
    file = tmp_path / "catalog.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    try:
        return load([file], NOW)
    except ConfigError as error:
        problems = error.diagnostics
    assert problems
    return None


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


@pytest.mark.parametrize("path", list(_places(_ENTRY)), ids=str)
def test_what_is_accepted_of_a_remediation_can_be_used(path: tuple[Any, ...], tmp_path: Path) -> None:
    """Durations end within the calendar, counts fit into a column, and all of it is JSON."""
    assert _loaded(tmp_path, {"remediations": [_ENTRY]}) is not None
    for huge in _HUGE:
        catalog = _loaded(tmp_path, {"remediations": [_with(_ENTRY, path, huge)]})
        if catalog is None:
            continue
        one = catalog.remediations["all"]
        assert json.loads(json.dumps(one.to_json(), allow_nan=False))
        lengths = [one.max_age, one.settle or timedelta(), one.effective_within, one.revert_after]
        lengths += [one.limits.cooldown, one.limits.breaker_pause, *(step.timeout for step in one.steps)]
        rates = (*one.limits.rate, *one.limits.target_rate, *one.limits.storm)
        for length in [*lengths, *(rate.window for rate in rates)]:
            assert NOW - length < NOW + length + length or not length
        assert all(1 <= rate.count <= MAX_COUNT for rate in rates)
        assert all(abs(number) <= MAX_COUNT for number in _numbers(one.limits.model_dump(mode="json")))


@pytest.mark.parametrize("path", list(_places(_FREEZE)), ids=str)
def test_what_is_accepted_of_a_freeze_can_be_used(path: tuple[Any, ...], tmp_path: Path) -> None:
    """It holds or not, and has an end, at any moment that a clock shows."""
    for huge in _HUGE:
        catalog = _loaded(tmp_path, {"freezes": [_with(_FREEZE, path, huge)]})
        for freeze in catalog.freezes if catalog else ():
            for now in (NOW, datetime(1971, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, 23, 59, tzinfo=UTC)):
                assert freeze.end(now) >= now
                assert freeze.is_over(now) in {True, False}
                assert freeze.when
                assert json.dumps(freeze.model_dump(mode="json"))


def test_what_is_wrong_is_said() -> None:
    """In words, with the bound."""
    with pytest.raises(ValueError, match="counts more than 2147483647"):
        parse_rates("99999999999999999999/1h")
    with pytest.raises(ValueError, match="longer than 100y"):
        parse_duration("99999999y")
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration("9" * 5000 + "s")


def test_a_time_that_its_offset_moves_out_of_the_calendar_is_refused(tmp_path: Path) -> None:
    """Before it fails every run."""
    file = tmp_path / "catalog.yaml"
    document = {"freezes": [_FREEZE | {"ends": "9999-12-31T23:59:59-05:00"}]}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load([file], NOW)
    assert ["quiet.ends"] == [problem.path for problem in caught.value.diagnostics]
    assert "before the year 9000" in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    "name",
    ["concurrency", "workers", "max_body_bytes", "max_alerts", "max_requests", "rate", "storm", "lease", "drain"],
)
def test_settings_are_bounded_too(name: str, tmp_path: Path) -> None:
    """A value is taken, or refused with its name."""
    for huge in _HUGE:
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({name: huge}), encoding="utf-8")
        taken: Any = None
        refused: list[str] = []
        try:
            taken = getattr(load_settings(file, {}), name)
        except ConfigError as error:
            refused = [problem.path for problem in error.diagnostics]
        assert refused or isinstance(taken, timedelta | tuple) or 1 <= taken <= MAX_COUNT


def test_no_call_may_take_longer_than_an_hour() -> None:
    """What PostgreSQL and libpq take as a time-out has an end."""
    with pytest.raises(ValueError, match="less than or equal"):
        Connections.model_validate({"timeout": "100y"})
