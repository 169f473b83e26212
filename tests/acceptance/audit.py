"""Reads what the service says about itself, over HTTP and nothing else: runs, episodes, metrics."""

from __future__ import annotations

from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.domain.states import FINAL_STATES
from tests.support.processes import wait_until
from tests.support.service import Service

PATIENCE = 60.0  # seconds; only a failing test on a busy machine waits that long


class Audit:
    """The audit of one replica, as the bearer of a token sees it."""

    def __init__(self, service: Service, token: str = "") -> None:
        self._service = service
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, **params: Any) -> Any:
        """The JSON answer to a GET."""
        return self._service.get(path, params=params, headers=self._headers).raise_for_status().json()

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """The answer to a POST, whatever it is."""
        return self._service.post(path, headers=self._headers, **arguments)

    def runs(self, **query: Any) -> list[dict[str, Any]]:
        """Runs, oldest first."""
        found: list[dict[str, Any]] = self.get("/remediations", **query)["items"]
        return found[::-1]

    def run(self, run_id: str) -> dict[str, Any]:
        """Everything about one run."""
        detail: dict[str, Any] = self.get(f"/remediations/{run_id}")
        return detail

    def episodes(self, **query: Any) -> list[dict[str, Any]]:
        """Received alerts, oldest first."""
        found: list[dict[str, Any]] = self.get("/episodes", **query)["items"]
        return found[::-1]

    def episode(self, **query: Any) -> dict[str, Any]:
        """The one alert of a query, once it was received."""
        found = wait_until(lambda: self.episodes(**query), PATIENCE, f"an episode of {query}")
        assert len(found) == 1, found
        return found[0]

    def reached(self, state: str, **query: Any) -> dict[str, Any]:
        """The one run of a query, once it is in a state; fails as soon as it has ended in another one."""

        def there() -> list[dict[str, Any]]:
            return [run for run in self.runs(**query) if run["state"] in {state, *FINAL_STATES}]

        try:
            found = wait_until(there, PATIENCE, f"a run of {query} to be {state}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; there is {self.runs(**query)}") from error
        assert [state] == [run["state"] for run in found], [(run["reason"], run["message"]) for run in found]
        return self.run(found[0]["id"])

    def ended(self, count: int, **query: Any) -> list[dict[str, Any]]:
        """All runs of a query, once there are so many and all have ended."""

        def there() -> list[dict[str, Any]]:
            found = self.runs(**query)
            return found if len(found) == count and all(run["state"] in FINAL_STATES for run in found) else []

        found = wait_until(there, PATIENCE, f"{count} runs of {query} to end")
        return [self.run(run["id"]) for run in found]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        return sample(self._service.get("/metrics").raise_for_status().text, name, **labels)


def sample(exposition: str, name: str, **labels: str) -> float:
    """The sum of the samples with these labels in a text as `/metrics` answers it."""
    return sum(
        one.value
        for family in text_string_to_metric_families(exposition)
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


def kinds(run: dict[str, Any]) -> list[str]:
    """The kinds of a run's events, in order."""
    return [event["kind"] for event in run["events"]]
