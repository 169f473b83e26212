"""What the log has about a catalog, at the start and after each reload."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import structlog

from app.backends.connections import Connections
from app.backends.scope import Scope
from app.main import Service, installation_of, utc_now
from app.settings import Settings
from app.store.migrations.migrate import migrate
from tests.support import quiet

STEP = '{action: notify.send, with: {channel: ops, title: "t", body: "b"}}'
ENTRY = f'remediations: [{{name: tells, summary: s, matchers: [alertname="A"], mode: auto, steps: [{STEP}]}}]'


def test_what_is_not_configured_is_told_after_a_reload_too(tmp_path: Path) -> None:
    """A change that can never run is found out before the night."""
    file = tmp_path / "catalog.yaml"
    file.write_text(ENTRY)
    notify = Connections.model_validate({"notify": {"ops": {"urls": [{"value": "json://127.0.0.1"}]}}})
    settings = Settings(catalog=(file,), data=tmp_path, connections=notify)
    with quiet.plain_logs(), structlog.testing.capture_logs() as lines:
        service = Service(settings)
        assert [] == [line for line in lines if line["log_level"] == "warning"]
        file.write_text(ENTRY.replace("ops", "opps"))
        assert asyncio.run(service.catalog.reload(utc_now()))
    told = [line["at"] for line in lines if line["log_level"] == "warning"]
    assert [f'{file}:1:1  tells  connections.notify has no "opps"; did you mean "ops"?'] == told


def test_a_label_that_hides_alerts_is_told_at_the_start_and_after_a_reload(tmp_path: Path) -> None:
    """Alerts that differ only in an ignored label are one; a remediation that uses it acts for the first."""
    file = tmp_path / "catalog.yaml"
    step = '{action: http.request, with: {url: "http://a/"}}'
    matcher = "'prometheus_replica=\"a\"'"
    entry = f"remediations: [{{name: one, summary: s, matchers: [{matcher}], mode: auto, steps: [{step}]}}]"
    file.write_text(entry)
    settings = Settings(catalog=(file,), data=tmp_path, scope=Scope(http={"hosts": ("a",)}))
    with quiet.plain_logs(), structlog.testing.capture_logs() as lines:
        service = Service(settings)
        assert asyncio.run(service.catalog.reload(utc_now()))
    told = [line["at"] for line in lines if 'uses the label "prometheus_replica"' in line.get("at", "")]
    assert 2 == len(told)


def test_check_the_log_and_the_api_say_the_same_of_a_catalog(tmp_path: Path) -> None:
    """Also after a reload; who asks the API does not read the log."""
    file = tmp_path / "catalog.yaml"
    step = '{action: http.request, with: {url: "http://b/"}}'
    other = f'{{name: other, summary: s, matchers: [alertname="B"], steps: [{step}]}}'
    file.write_text(f"{ENTRY[:-1]}, {other}]")
    settings = Settings(catalog=(file,), data=tmp_path)
    with quiet.plain_logs(), structlog.testing.capture_logs() as lines:
        service = Service(settings)
        answers = asyncio.run(_ask(service))
    expected = [str(one) for one in installation_of(settings).warnings(service.catalog.current)]
    assert 3 == len(expected)
    assert [expected, expected, expected] == [answer["warnings"] for answer in answers]
    assert expected * 2 == [line["at"] for line in lines if line["event"] == "catalog"]


async def _ask(service: Service) -> list[dict[str, Any]]:
    """GET, reload, GET."""
    await migrate(service.database)
    transport = httpx.ASGITransport(app=service.application())
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        asked = [await client.get("/catalog"), await client.post("/-/reload"), await client.get("/catalog")]
    await service.parts.clients.close()
    await service.database.close()
    return [one.raise_for_status().json() for one in asked]
