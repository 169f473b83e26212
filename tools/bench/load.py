"""Posts notifications over connections that stay open, as fast as they are answered, and times each answer.

Written against the bytes of HTTP/1.1, since a client library costs more than the receivers that are measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count as counting
from typing import cast
from urllib.parse import urlsplit

import uvloop

from tools.bench.receivers import PATH

_END = b"\r\n\r\n"
_runs = counting(1)
_BEGAN = datetime.now(UTC).isoformat()  # alerts that are old are not acted on


@dataclass(frozen=True)
class Load:
    """What to send: `count` notifications of `alerts` alerts each; `distinct` fingerprints, 0 for all different."""

    count: int
    alerts: int = 1
    concurrency: int = 8
    distinct: int = 0
    alertname: str = "DiskSpaceFilling"
    kinds: int = 1  # so many alertnames, one after the other
    seconds: float = 0.0  # stop sending after so long; 0: send all


@dataclass
class Sent:
    """How it went."""

    load: Load
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def notifications_a_second(self) -> float:
        """The rate of answers."""
        return len(self.latencies) / self.seconds

    @property
    def alerts_a_second(self) -> float:
        """The rate of alerts that were answered for."""
        return self.notifications_a_second * self.load.alerts


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all is not above; 0.0 of nothing."""
    found = sorted(values)
    return found[min(len(found) - 1, round(share * (len(found) - 1)))] if found else 0.0


def body(load: Load, number: int, salt: str = "") -> bytes:
    """One notification, of about the size that node exporters' alerts have."""
    alerts = []
    for position in range(load.alerts):
        which = number * load.alerts + position
        which = which % load.distinct if load.distinct else which
        alerts.append(_alert(load, which, salt))
    group = {"alertname": load.alertname, "cluster": "prod-eu-1"}
    return json.dumps(
        {
            "version": "4",
            "groupKey": f'{{}}/{{team="platform"}}:{{alertname="{load.alertname}"}}',
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "remediator",
            "groupLabels": group,
            "commonLabels": {**group, "env": "production", "job": "node-exporter", "team": "platform"},
            "commonAnnotations": {"runbook_url": "https://runbooks.example/storage/disk-space-filling"},
            "externalURL": "http://alertmanager.example:9093",
            "alerts": alerts,
        }
    ).encode()


def _alert(load: Load, which: int, salt: str) -> dict[str, object]:
    name = load.alertname if load.kinds == 1 else f"{load.alertname}{which % load.kinds}"
    instance = f"node-{which:07d}.example:9100"
    labels = {
        "alertname": name,
        "cluster": "prod-eu-1",
        "device": "/dev/nvme0n1p1",
        "env": "production",
        "fstype": "ext4",
        "instance": instance,
        "job": "node-exporter",
        "mountpoint": "/var/lib/data",
        "prometheus": "monitoring/main",
        "service": "storage",
        "severity": "critical",
        "team": "platform",
        "run": salt,
    }
    return {
        "status": "firing",
        "labels": labels,
        "annotations": {
            "description": f"Filesystem /var/lib/data on {instance} has 3.7% space left and is full in 4 hours.",
            "runbook_url": "https://runbooks.example/storage/disk-space-filling",
            "summary": f"Disk space filling on {instance}",
        },
        "startsAt": _BEGAN,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example:9090/graph?g0.expr=node_filesystem_avail_bytes+%2F+node_filesystem_size",
        "fingerprint": hashlib.blake2b(f"{salt}/{which}".encode(), digest_size=8).hexdigest(),
    }


class _Connection(asyncio.Protocol):
    """One request at a time; the answer is its status."""

    transport: asyncio.WriteTransport | None = None

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    async def ask(self, request: bytes) -> int:
        """Send a request; the status of its answer, 0 when the connection broke."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(_END)
        lowered = head.lower()
        start = lowered.find(b"content-length:")
        if not end or start < 0 or len(rest) < int(lowered[start + 15 :].partition(b"\r\n")[0]):
            return
        self._buffer = b""
        self._give(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.transport = None
        self._give(0)

    def _give(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


def post(url: str, load: Load) -> Sent:
    """Send a load and wait for every answer."""
    return uvloop.run(_post(url, load))


async def _post(url: str, load: Load) -> Sent:
    salt = f"{time.time_ns():x}-{next(_runs)}"
    requests = [_request(url, body(load, number, salt)) for number in range(load.count)]
    sent, left = Sent(load), iter(requests)
    begun = time.perf_counter()
    await asyncio.gather(*(_send(url, left, sent, begun) for _ in range(load.concurrency)))
    sent.seconds = time.perf_counter() - begun
    return sent


async def _send(url: str, left: Iterator[bytes], sent: Sent, begun: float) -> None:
    place = urlsplit(url)
    connection = _Connection()
    for request in left:
        if connection.transport is None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, place.hostname, place.port)
        at = time.perf_counter()
        status = await connection.ask(request)
        sent.latencies.append(time.perf_counter() - at)
        sent.statuses[status] += 1
        if sent.load.seconds and time.perf_counter() - begun > sent.load.seconds:
            break
    if connection.transport is not None:
        connection.transport.close()


def _request(url: str, content: bytes) -> bytes:
    place = urlsplit(url)
    head = f"POST {PATH} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}{_END.decode()}".encode() + content
