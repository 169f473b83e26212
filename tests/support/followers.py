"""A client that follows the events of a replica as they happen, as an exporter to another system does."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from typing import Any

import httpx

from tests.support.processes import POLL_SECONDS
from tests.support.service import Service


class Follower:
    """Follows from its beginning, or from a cursor, until the replica ends; what it was told is `told`.

    Where the replica does not answer yet, or ends an answer, it goes on where it was.
    """

    def __init__(self, service: Service, after: str = "0-0") -> None:
        self.told: list[dict[str, Any]] = []
        self._place = after
        self._service = service
        threading.Thread(target=self._follow, daemon=True).start()

    @property
    def cursors(self) -> list[str]:
        """The places of what it was told, in the order in which it was."""
        return [event["cursor"] for event in self.told]

    @property
    def hashes(self) -> list[str]:
        """What it was told, each with all that its chain had before, in the order in which it was told."""
        return [event["hash"] for event in self.told]

    def _follow(self) -> None:
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {self._service.options.token}"}
        patience = httpx.Timeout(10, read=None)
        with suppress(httpx.ConnectError), httpx.Client(headers=headers, timeout=patience, trust_env=False) as client:
            while True:
                with suppress(httpx.RemoteProtocolError, httpx.ReadError):
                    self._listen(client)
                time.sleep(POLL_SECONDS)  # before it connects again, as a browser does

    def _listen(self, client: httpx.Client) -> None:
        url, place = f"{self._service.url}/events", {"Last-Event-ID": self._place}
        with client.stream("GET", url, headers=place) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    self.told.append(event)
                    self._place = event["cursor"]
