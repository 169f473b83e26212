"""Writes the chart's Grafana dashboard from the panels in tools/panels.py, for Grafana 10 and later.

Run as `python -m tools.dashboard`; with `--check` it only says whether the file is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tools.panels import ROWS, Panel

FILE = Path(__file__).parents[1] / "helm" / "remediator" / "dashboards" / "remediator.json"
WIDTH = 24
GREEN, RED = {"color": "green", "value": None}, "red"


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "remediator",
        "title": "Remediator",
        "description": "What the remediator did about alerts, what it did not do and why, and how it fares itself.",
        "tags": ["remediator"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), _job()]},
        "annotations": {"list": []},
        "panels": _laid_out(),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _job() -> dict[str, Any]:
    query = "label_values(remediator_build_info, job)"
    return {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": _source(),
        "query": {"query": query, "refId": "job"},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _source() -> dict[str, str]:
    return {"type": "prometheus", "uid": "${datasource}"}


def _laid_out() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place})
        left, height = 0, 4 if all(panel.kind == "stat" for panel in row) else 8
        for panel in row:
            place = {"x": left, "y": top + 1, "w": panel.width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            left += panel.width
        top += 1 + height
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + n), "datasource": _source(), "expr": query.expression, "legendFormat": query.legend}
        for n, query in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _source(),
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": _steps(panel)}}
    if panel.kind == "timeseries":
        defaults |= {"min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}
        defaults["custom"] |= {"stacking": {"mode": "normal"}} if panel.stacked else {}
    if panel.mappings:
        options = {value: {"text": text} for value, text in panel.mappings.items()}
        defaults["mappings"] = [{"type": "value", "options": options}]
    return defaults


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.good_from is not None:
        return [{"color": RED, "value": None}, {"color": "green", "value": panel.good_from}]
    return [GREEN, *([{"color": RED, "value": panel.bad_from}] if panel.bad_from is not None else [])]


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        text = "value_and_name" if panel.queries[0].legend else "value"
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "textMode": text}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def main() -> int:
    """Write the file, or say whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is out of date")
    arguments = parser.parse_args()
    text = json.dumps(dashboard(), indent=2) + "\n"
    if not arguments.check:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if FILE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{FILE.name} is out of date: run python -m tools.dashboard", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
