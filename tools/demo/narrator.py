"""Tells a person what the service's audit says, event by event, as it happens."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from tests.support.service import Service

_COLOURS = {"title": "1", "good": "32", "bad": "31", "quiet": "2", "name": "36"}
_GOOD, _BAD = {"succeeded"}, {"failed", "denied", "interrupted", "expired"}
_WIDTH = 150


def paint(style: str, text: str) -> str:
    """Colour on a terminal that wants it, plain text elsewhere."""
    wanted = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return f"\033[{_COLOURS[style]}m{text}\033[0m" if wanted else text


def say(text: str = "") -> None:
    """One line, at once."""
    print(text, flush=True)


@dataclass
class Narrator:
    """Follows `/remediations` of a running service."""

    service: Service
    _told: dict[str, int] = field(default_factory=dict)  # run → id of its newest event that was told

    def runs(self) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        items: list[dict[str, Any]] = self.service.get("/remediations").raise_for_status().json()["items"]
        return items[::-1]

    def tell_news(self) -> list[dict[str, Any]]:
        """Tell every event that is new; returns the runs."""
        runs = self.runs()
        for run in runs:
            detail = self.service.get(f"/remediations/{run['id']}").raise_for_status().json()
            for event in detail["events"]:
                if event["id"] > self._told.get(run["id"], 0):
                    self._told[run["id"]] = event["id"]
                    _tell(detail, event)
        return runs


def _tell(run: dict[str, Any], event: dict[str, Any]) -> None:
    when = event["at"][11:19]
    style = "good" if event["kind"] in _GOOD else "bad" if event["kind"] in _BAD else "quiet"
    head = f"{paint('quiet', when)}  {paint('name', run['remediation']):<16}  {paint(style, event['kind'])}"
    say(f"{head}  {_words(run, event)}")
    if event["kind"] == "running":
        for step in run["plan"]["steps"]:
            say(f"{'':10}plan    {step['summary']}")
            say(f"{'':10}before  {_brief(step['before'])}")
            say(f"{'':10}after   {_brief(step['desired'])}")


def _words(run: dict[str, Any], event: dict[str, Any]) -> str:
    if event["kind"] == "recorded":
        return f"alert {run['alertname']} arrived"
    if event["kind"] == "step_succeeded":
        return _brief(event["data"]["result"])
    return " ".join(str(event["message"]).split())


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
