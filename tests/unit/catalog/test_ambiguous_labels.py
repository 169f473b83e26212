"""Labels in which replicas of one Prometheus differ: a remediation that uses one is told before it hides an alert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.catalog.loader import load
from app.catalog.references import ambiguous
from app.cli.checking import check
from app.domain.episodes import EpisodeRules
from tests.support.alerts import NOW

IGNORED = (*EpisodeRules().ignored_labels, "replica")


def _catalog(file: Path, *, matcher: str = 'alertname="A"', value: str = "x", target: str = "") -> Path:
    step = f"""{{action: http.request, with: {{url: "http://a/", body: '{value}'}}}}"""
    file.write_text(
        f"remediations: [{{name: a, summary: s, matchers: ['{matcher}'], mode: auto, {target} steps: [{step}]}}]"
    )
    return file


@pytest.mark.parametrize(
    "uses",
    [
        {"matcher": 'replica=~"chi-.*"'},
        {"matcher": 'replica!=""'},
        {"value": "{{ labels.replica }}"},
        {"value": '{{ labels["replica"] | upper }}'},
        {"value": '{% if labels.get("replica", "") %}x{% endif %}'},
        {"target": 'target: {redis: {instance: cache, database: "{{ labels.replica }}"}},'},
    ],
)
def test_each_use_of_an_ignored_label_is_a_warning(tmp_path: Path, uses: dict[str, str]) -> None:
    """In matchers, in templates and in the target, however the label is written."""
    catalog = load([_catalog(tmp_path / "catalog.yaml", **uses)], NOW)
    (warning,) = ambiguous(catalog, IGNORED)
    assert ("a", True) == (warning.path, warning.message.startswith('it uses the label "replica"'))
    assert [] == ambiguous(catalog, EpisodeRules().ignored_labels)


@pytest.mark.parametrize("value", ["replica", "{{ annotations.replica }}", "{{ labels.replicas }} of replica"])
def test_the_same_word_elsewhere_is_none(tmp_path: Path, value: str) -> None:
    """An annotation, another label or plain text hides no alert."""
    assert [] == ambiguous(load([_catalog(tmp_path / "catalog.yaml", value=value)], NOW), IGNORED)


def test_check_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the catalog is deployed."""
    monkeypatch.setenv("REMEDIATOR_EPISODES__IGNORED_LABELS", '["pod_replica"]')
    monkeypatch.setenv("REMEDIATOR_SCOPE__HTTP__HOSTS", '["a"]')
    file = _catalog(tmp_path / "catalog.yaml", value="{{ labels.pod_replica }}")
    done = CliRunner().invoke(check, ["--json", "--data", str(tmp_path), str(file)])
    assert 0 == done.exit_code, done.output
    assert ['it uses the label "pod_replica"'] == [
        one["message"].partition(", which")[0]
        for one in json.loads(done.stdout)["warnings"]
        if "pod_replica" in one["message"]
    ]
