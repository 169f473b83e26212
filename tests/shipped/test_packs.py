"""The shipped remediations answer the alerts of their own system's rules, as these emit them, and no others."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.catalog.catalog import Catalog
from app.catalog.loader import load
from tests.shipped.base_image import ROOT
from tests.shipped.packs import SYSTEMS, alerts, rules

WHOSE = ["team", "namespace", "project", "job", "datname"]  # labels that tell a system from another
UNANSWERED = re.compile(r"\| (paged to people until|none:)")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The shipped remediations."""
    return load([ROOT / "remediations"], datetime.now(UTC))


def _answers(catalog: Catalog, labels: dict[str, str]) -> list[str]:
    return [found.name for found in catalog.match(labels)]


def _own(catalog: Catalog, system: str) -> set[str]:
    return {name for name, source in catalog.sources.items() if Path(source.file).stem == system}


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_alert_is_answered_by_its_own_system(catalog: Catalog, system: str) -> None:
    """By one remediation, or by two where one asks; and no remediation waits for an alert that no rule raises."""
    found = {name for labels in alerts(system) for name in _answers(catalog, labels)}
    assert found == _own(catalog, system)
    for labels in alerts(system):
        modes = [remediation.mode for remediation in catalog.match(labels)]
        assert len(modes) == len({*modes})


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_page_of_a_system_says_what_is_answered(catalog: Catalog, system: str) -> None:
    """Each row of an alert that nothing answers says so; and each remediation of the system has its row."""
    text = (ROOT / "docs" / "packs" / f"{system}.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| \d+\.\d+ \| .*`\w+` \|", line)]
    for row in rows:
        (alertname,) = re.findall(r"`(\w+)` \|", row)[:1]
        answers = [_answers(catalog, labels) for labels in alerts(system) if labels["alertname"] == alertname]
        assert [bool(UNANSWERED.search(row))] * len(answers) == [not names for names in answers], row
    assert {
        name for name in re.findall(rf"`({system}-[a-z-]+)`", "\n".join(rows)) if name in catalog.remediations
    } == _own(catalog, system)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_alert_of_somebody_else_matches_nothing(catalog: Catalog, system: str) -> None:
    """Of a staging namespace or project, of another team, job or database."""
    acted_on = [labels for labels in alerts(system) if _answers(catalog, labels)]
    assert acted_on
    for labels in acted_on:
        for label in {*WHOSE} & labels.keys():
            for other in ("staging", f"{labels[label]}-staging", f"staging-{labels[label]}", ""):
                if (label, other) != ("job", ""):
                    assert _answers(catalog, labels | {label: other}) == [], (labels, label, other)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_remediation_names_the_runbook_of_an_alert(catalog: Catalog, system: str) -> None:
    """A person who is asked reads on where the alert sends its people."""
    links = {rule["annotations"]["runbook_url"] for rule in rules(system)}
    assert [name for name in _own(catalog, system) if str(catalog.remediations[name].runbook_url) not in links] == []
