"""`pod` and `exported_pod`: which of two labels an alert is about."""

from __future__ import annotations

from typing import Any

import pytest

from app.catalog.exported import objection
from app.catalog.loader import load
from tests.unit.catalog.vocabulary import NOW

LABELS = {
    "alertname": "KubePodCrashLooping",
    "job": "kube-state-metrics",
    "namespace": "monitoring",
    "pod": "kube-state-metrics-7575857457-8p2xj",
    "container": "api",
    "exported_namespace": "team-a",
    "exported_pod": "api-6d9f7c8b5d-x2x9z",
    "exported_container": "api",
}


@pytest.mark.parametrize(
    ("template", "label"),
    [
        ("{{ labels.pod }}", "pod"),
        ('{{ labels["pod"] }}', "pod"),
        ("{{ labels.get('pod') }}", "pod"),
        ("{{ labels.pod | lower }}-{{ labels.job }}", "pod"),
        ("{% if labels.namespace %}x{% endif %}", "namespace"),
        ("{{ labels.exported_pod }}.{{ labels.namespace }}", "namespace"),
        ("{{ labels.container }}", None),  # both say the same
        ("{{ labels.job }}", None),  # has no twin
        ("{{ labels.exported_pod }}", None),
        ("{{ labels.exported_pod | default(labels.pod) }}", None),  # knows the difference
        ("labels.pod", None),
    ],
)
def test_a_label_that_names_the_exporter_is_objected_to(template: str, label: str | None) -> None:
    """Wherever the template stands, with the label to use instead."""
    found = objection({"name": "x", "deep": [{"er": template}]}, LABELS)
    if label is None:
        assert found is None
    else:
        assert found
        assert f"labels.{label} is {LABELS[label]!r}" in found
        assert f"use labels.exported_{label}" in found


def test_without_a_twin_there_is_nothing_to_confuse() -> None:
    """Most alerts have no renamed label."""
    assert objection("{{ labels.pod }}", {"pod": "api-6d9f7c8b5d-x2x9z"}) is None


@pytest.mark.parametrize(
    ("matcher", "name", "warned"),
    [
        ('exported_pod=~".+"', "{{ labels.pod }}", True),
        ('exported_pod=~".+"', "{{ labels.exported_pod }}", False),
        ('pod=~".+"', "{{ labels.pod }}", False),
    ],
)
def test_the_loader_warns_where_the_matchers_tell(tmp_path: Any, matcher: str, name: str, warned: bool) -> None:
    """A remediation that matches by the one label and acts on the other was written by mistake."""
    file = tmp_path / "catalog.yaml"
    file.write_text(
        f"""
remediations:
  - name: restart
    summary: Restart it.
    matchers: [alertname="KubePodCrashLooping", '{matcher}']
    mode: approve
    target: {{kubernetes: {{kind: Pod, namespace: shop, name: "{name}"}}}}
    steps: [{{action: kubernetes.rollout_restart}}]
    verify: [{{check: kubernetes.rollout_complete}}]
"""
    )
    warnings = [str(one) for one in load([file], NOW).warnings]
    assert warned == any("use labels.exported_pod" in one for one in warnings), warnings
