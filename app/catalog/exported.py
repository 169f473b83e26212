"""Which of two labels an alert is about, where Prometheus has renamed one: `pod` and `exported_pod`.

A scrape without `honor_labels` keeps `pod` for the exporter, and moves the pod of the series to `exported_pod`. A
remediation with `labels.pod` then acts on a healthy exporter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from app.catalog.templates import is_template, labels_used, texts

_PREFIX = "exported_"
_SHOWN = 80


def objection(value: object, labels: Mapping[str, str]) -> str | None:
    """Say which label within `value` names the exporter of this alert, and which to use instead; None where none does.

    Templates that name both labels know the difference.
    """
    given = {name.removeprefix(_PREFIX) for name in labels if name.startswith(_PREFIX)}
    for name in exporters(value, given):
        own, other = labels.get(name, ""), labels[_PREFIX + name]
        if own != other:
            return (
                f"labels.{name} is {own[:_SHOWN]!r}, the exporter that Prometheus scraped; the alert is about "
                f"{other[:_SHOWN]!r}: use labels.{_PREFIX}{name}, or scrape with honor_labels: true"
            )
    return None


def exporters(value: object, exported: Collection[str]) -> list[str]:
    """The labels of `exported` that templates within `value` name without their twin."""
    if not exported:
        return []
    used = frozenset().union(*(labels_used(text) for text in texts(value) if is_template(text)))
    return sorted(name for name in used & {*exported} if _PREFIX + name not in used)
