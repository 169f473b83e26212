"""What the log has about a catalog, at the start and after each reload."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from app.clients.connections import Connections
from app.main import Service, utc_now
from app.settings import Settings
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
