"""Puts the service and what surrounds it together: catalog, configuration, Alertmanager's routes, an exporter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from tests.acceptance.audit import sample
from tests.support import service
from tests.support.alertmanager import Alertmanager
from tests.support.service import Service, ServiceOptions

EVERYWHERE = {
    "kubernetes": {"namespaces": ["*"]},
    "postgres": {"databases": ["*"]},
    "redis": {"databases": ["*"]},
    "http": {"hosts": ["*"]},
}
CONFIG = {
    "rate": "1000/1h",
    "recheck": "300ms",
    "concurrency": 1000,
    "storm": "100000/1m",
    "scope": EVERYWHERE,
    "log": {"format": "json"},
}


def remediation(name: str, /, *steps: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A catalog entry for the alert of the same name that acts at once."""
    made = {
        "name": name,
        "summary": f"What the test does about {name}.",
        "matchers": [f'alertname="{name}"'],
        "mode": "auto",
        "limits": {"cooldown": "0s", "rate": "1000/1h"},
        "steps": list(steps),
    }
    return made | fields


def request(url: str, **params: Any) -> dict[str, Any]:
    """A step that POSTs; the server that it asks can count its effects."""
    return {"action": "http.request", "with": {"url": url, **params}}


def write_yaml(path: Path, content: object) -> Path:
    """Write a file as a person would, and say where it is."""
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def options(
    home: Path, remediations: Iterable[Mapping[str, Any]], config: Mapping[str, Any] | None = None, **more: Any
) -> ServiceOptions:
    """What to start the service with: its catalog and its configuration as files in `home`."""
    catalog = write_yaml(home / "catalog.yaml", {"remediations": [dict(one) for one in remediations]})
    settings = write_yaml(home / "config.yaml", {**CONFIG, **(config or {})})
    return ServiceOptions(**{"data": home / "data", "catalog": [catalog], "config": settings, **more})


@contextmanager
def serving(
    home: Path, remediations: Iterable[Mapping[str, Any]], config: Mapping[str, Any] | None = None, **more: Any
) -> Iterator[Service]:
    """Run the service with a catalog and a configuration."""
    with service.serve(home, options(home, remediations, config, **more)) as running:
        yield running


def routes(url: str, **route: Any) -> str:
    """Alertmanager's configuration: everything to the service, at once, one alert per notification unless told else."""
    http_config = route.pop("http_config", None)
    webhook = {"url": f"{url}/webhooks/alertmanager", "send_resolved": True}
    webhook |= {"http_config": http_config} if http_config else {}
    quick = {"group_by": ["..."], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
    root = {"receiver": "remediator", **quick, **route}
    return yaml.safe_dump({"route": root, "receivers": [{"name": "remediator", "webhook_configs": [webhook]}]})


def notified(router: Alertmanager, name: str = "alertmanager_notifications_total") -> float:
    """What Alertmanager itself counts of its webhook."""
    text = httpx.get(f"{router.url}/metrics", trust_env=False).raise_for_status().text
    return sample(text, name, integration="webhook")


def resolve(router: Alertmanager, labels: Mapping[str, str]) -> None:
    """Tell Alertmanager that an alert is over."""
    router.push(labels, ends_at=datetime.now(UTC))


class _Collector(Collector):
    def __init__(self, look: Callable[[], Iterable[Metric]]) -> None:
        self._look = look

    def collect(self) -> Iterable[Metric]:
        return self._look()

    def describe(self) -> Iterable[Metric]:
        return []


@contextmanager
def exporter(look: Callable[[], Iterable[Metric]]) -> Iterator[str]:
    """Serve metrics that are looked up at each scrape; yields host:port."""
    registry = CollectorRegistry()
    registry.register(_Collector(look))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
