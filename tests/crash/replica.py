"""One service that is to die at a point, and that is started again without one."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from app.domain.states import FINAL_STATES
from tests.support.crashing import Crashing, Point
from tests.support.processes import free_port, wait_until

DEADLINE = 60
ASK_SECONDS = 0.1  # asking costs the service the time that its runs need
_JSON = {"Content-Type": "application/json"}


class Replica:
    """A service of its own directory, whose remediations each have one run."""

    def __init__(
        self,
        crashing: Crashing,
        home: Path,
        store: str | None,
        entries: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any],
    ) -> None:
        home.mkdir(parents=True)
        self.log = home / "service.log"
        self.died = False
        self._crashing = crashing
        self._names = {entry["name"] for entry in entries}
        self._port = free_port()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", trust_env=False, timeout=30)
        catalog, settings = home / "catalog.yaml", home / "config.yaml"
        catalog.write_text(yaml.safe_dump({"remediations": list(entries)}))
        settings.write_text(yaml.safe_dump(dict(config)))
        self._arguments = ["serve", "--listen", f"127.0.0.1:{self._port}", "--catalog", str(catalog)]
        self._arguments += ["--data", str(home), "--config", str(settings)]
        self._arguments += ["--store", store] if store else []
        self._process: Any = None

    def start(self, point: Point | None = None) -> None:
        """Start the service; it may die before it serves."""
        environment = {"REMEDIATOR_LEASE": "2s", "REMEDIATOR_LOG__LEVEL": "warning"}
        self._process = self._crashing.start(point, self._arguments, environment, self.log)

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._crashing.status(self._process) is not None

    def stop(self) -> None:
        """Ask it to end, as an orchestrator does."""
        self._process.terminate()

    def kill(self) -> None:
        """End it, as a crash does."""
        self._process.kill()
        self._crashing.join(self._process)

    def deliver(self, body: bytes) -> None:
        """Send a notification until it is recorded, as Alertmanager does; whoever dies meanwhile is started again."""
        wait_until(lambda: self._post(body) or self._revived(), DEADLINE, "the notification to be recorded")

    def finish(self, purpose: str = "remedy", names: set[str] | None = None) -> None:
        """Wait until each remediation's run of this purpose has ended; whoever dies meanwhile is started again."""

        def ended() -> bool:
            runs = self.runs(purpose)
            return set(runs) == (names or self._names) and set(runs.values()) <= FINAL_STATES

        wait_until(lambda: ended() or self._revived(), DEADLINE, f"every {purpose} to end", ASK_SECONDS)

    def runs(self, purpose: str = "remedy") -> dict[str, str]:
        """The state of each remediation's only run; nothing while the service does not answer."""
        try:
            answer = self._client.get("/remediations")
        except httpx.TransportError:
            return {}
        items = answer.json()["items"] if answer.is_success else []
        items = [item for item in items if item["purpose"] == purpose]
        assert len(items) == len({item["remediation"] for item in items}), f"a second run: {items}"
        return {item["remediation"]: item["state"] for item in items}

    def close(self) -> None:
        """End everything."""
        self.kill()
        self._client.close()

    def _post(self, body: bytes) -> bool:
        """Send a notification; False when nobody said that it is recorded."""
        try:
            return self._client.post("/webhooks/alertmanager", content=body, headers=_JSON).status_code == 202
        except httpx.TransportError:
            return False

    def _revived(self) -> bool:
        """Start it again if it has died; never an answer to what is waited for."""
        if self.is_dead:
            code = self._crashing.status(self._process)
            assert code == -signal.SIGKILL, f"ended with {code}: {self.log.read_text()[-2000:]}"
            self.died = True
            self.start()
        return False
