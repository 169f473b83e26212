"""The shipped rules are valid, fire when they should and only then, and explain themselves."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.shipped.base_image import ROOT
from tests.shipped.packs import OWN, RULES, SYSTEMS, TESTS, alerts, cases, rules
from tests.support.binaries import find

PAGES = "https://docs.example/remediator/"


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [str(find("promtool")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_rule_file_is_tested() -> None:
    """No file of rules or tests is left out below."""
    assert sorted(RULES) == sorted((ROOT / "rules").glob("*.yaml"))
    assert sorted(TESTS) == sorted((ROOT / "rules" / "tests").glob("*.yaml"))


def test_promtool_accepts_the_rules() -> None:
    """Every file is valid for the Prometheus of the test bed."""
    done = promtool("check", "rules", *RULES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_the_rules_fire_when_they_should(file: Path) -> None:
    """The unit tests beside the rules hold, unchanged."""
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("system", [*SYSTEMS, OWN])
def test_every_rule_is_seen_firing_and_quiet(system: str) -> None:
    """Each rule fires in a unit test, as often as its name is given, and is quiet in more evaluations than that."""
    given = Counter(rule["alert"] for rule in rules(system))
    firing = Counter(alert["alertname"] for alert in alerts(system))
    quiet = Counter(case["alertname"] for case in cases(system) if not case["exp_alerts"])
    assert given.keys() == firing.keys()
    assert [name for name in given if firing[name] < given[name] or quiet[name] <= given[name]] == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_alert_says_whose_it_is(system: str) -> None:
    """Its team is the system's, with the namespace or the project, and it is critical or a warning."""
    for rule in rules(system):
        labels = rule["labels"]
        assert labels["team"] == system
        assert len({"namespace", "project"} & labels.keys()) == 1
        assert labels["severity"] in {"critical", "warning"}


@pytest.mark.parametrize("system", [*SYSTEMS, OWN])
def test_every_rule_explains_itself(system: str) -> None:
    """A person gets a summary, a description, and the address of a page; a page of ours has that very place."""
    for rule in rules(system):
        notes = rule["annotations"]
        assert {"summary", "description", "runbook_url"} == notes.keys()
        page, _, place = notes["runbook_url"].removeprefix(PAGES).partition("#")
        if notes["runbook_url"].startswith(PAGES):
            text = (ROOT / "docs" / f"{page}.md").read_text()
            assert f'<a id="{place}"></a>' in text or re.search(rf"^#+ `?{place}`?$|`{place}`", text, re.MULTILINE)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_page_of_a_system_has_every_alert(system: str) -> None:
    """A row for each rule, in the rules' order, with its severity."""
    text = (ROOT / "docs" / "packs" / f"{system}.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| \d+\.\d+ \| .*`\w+` \|", line)]
    found = [(re.sub(r".*`(\w+)`.*", r"\1", row[1]), row[3]) for row in rows]
    assert found == [(rule["alert"], rule["labels"]["severity"]) for rule in rules(system)]
