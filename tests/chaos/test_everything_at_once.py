"""Three replicas under work, and everything happens to them and to their store, at random and at the same time.

`make test` does so for some seconds, with another seed each day, which a failure shows; `REMEDIATOR_CHAOS_SEED` gives
one. The long version (`make soak`) goes on for five minutes.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from tests.chaos.conftest import SOAK, MakeReplicas, Replicas
from tests.chaos.test_replicas import verified
from tests.support import postgres, web
from tests.support.alerts import alert, notification
from tests.support.clockwise import ahead
from tests.support.engine import Clock
from tests.support.entries import poke, request
from tests.support.processes import BedError, wait_until
from tests.support.service import Service
from tests.support.wire import Wire

SECONDS = 300.0 if SOAK else 20.0
PATIENCE = 600.0 if SOAK else 90.0
SEED = os.environ.get("REMEDIATOR_CHAOS_SEED", f"{datetime.now(UTC):%Y-%m-%d}")
LEASE_SECONDS = 2.0
AT_ONCE = 2  # things that happen
SLOTS = 100  # connections that the server takes
HOUR = timedelta(hours=1)
CLOCKS = (-HOUR, timedelta(), HOUR)  # of the machines
ENDS = {"succeeded", "failed", "interrupted", "cancelled", "denied", "expired"}
SESSIONS = "FROM pg_stat_activity WHERE application_name = 'remediator'"


@dataclass
class Bed:
    """Replicas, each behind a wire of its own, and what they were told."""

    group: Replicas
    server: postgres.PostgresServer
    wires: list[Wire]
    sink: web.WebServer
    # Two things do not happen to one replica at a time, and none starts while the server does.
    turns: list[threading.Lock] = field(default_factory=lambda: [threading.Lock() for _ in CLOCKS])
    of_server: threading.Lock = field(default_factory=threading.Lock)
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    happened: Counter[str] = field(default_factory=Counter)

    def start(self, number: int) -> None:
        """Start a replica, again where what happens meanwhile has ended it."""
        service = self.group.members[number]
        for _ in range(5):
            with suppress(BedError), self.of_server:
                service.restart()
                return
        raise BedError(f"replica {number} does not start: {service.logs[-2000:]}")

    def tell(self, chance: random.Random) -> None:
        """Tell of new alerts, of known ones again, and of ends, as Alertmanager does: until somebody takes it."""
        number = 0
        while not self.over.is_set():
            new = {f"pod-{number + one}": self._new(chance, number + one) for one in range(chance.randint(1, 3))}
            number += len(new)
            known = chance.sample(sorted(self.accepted), min(len(self.accepted), 2))
            again = [self.accepted[pod] for pod in known if self.accepted[pod]["status"] == "firing"]
            if again and chance.random() < 0.3:
                again[0] = self._ended(again[0])
            body = notification(*new.values(), *again)
            while not self.over.is_set() and not self._taken(chance.choice(self.group.members), body):
                self.over.wait(0.1)
            self.over.wait(chance.uniform(0, 0.15))
            if not self.over.is_set():
                self.accepted |= {one["labels"]["pod"]: one for one in (*new.values(), *again)}

    def _new(self, chance: random.Random, number: int) -> dict[str, Any]:
        name = chance.choice(["Once", "Again", "Twice"])
        return alert(alertname=name, pod=f"pod-{number}", fingerprint=f"{number:016x}", starts_at=Clock()())

    def _ended(self, one: dict[str, Any]) -> dict[str, Any]:
        return one | {"status": "resolved", "endsAt": Clock()().isoformat()}

    def _taken(self, service: Service, body: bytes) -> bool:
        headers = {"Content-Type": "application/json"}
        with suppress(httpx.HTTPError):
            return service.post("/webhooks/alertmanager", content=body, headers=headers, timeout=1).status_code == 202
        return False

    def happen(self, chance: random.Random) -> None:
        """Let one thing after another happen until it is over; each is mended before the next."""
        while not self.over.is_set():
            what, weight = zip(*self._everything().items(), strict=True)
            name = chance.choices(what, [one for one, _ in weight])[0]
            self.happened[name] += 1
            dict(zip(what, [one for _, one in weight], strict=True))[name](chance)
            self.over.wait(chance.uniform(0, 0.5))

    def _everything(self) -> dict[str, tuple[int, Callable[[random.Random], None]]]:
        return {
            "kill -9": (4, self._kill),
            "stop and continue": (4, self._freeze),
            "cut": (4, self._cut),
            "stall": (3, self._stall),
            "terminate": (3, self._terminate),
            "every slot is taken": (1, self._fill),
            "restart of the server": (1, lambda _: self._restart(signal.SIGINT)),
            "crash of the server": (1, lambda _: self._restart(signal.SIGQUIT)),
        }

    @contextmanager
    def _replica(self, chance: random.Random) -> Iterator[int]:
        number = chance.randrange(len(CLOCKS))
        with self.turns[number]:
            yield number

    def _kill(self, chance: random.Random) -> None:
        with self._replica(chance) as number:
            self.group.members[number].kill9()
            self.start(number)

    def _freeze(self, chance: random.Random) -> None:
        with self._replica(chance) as number:
            self.group.members[number].freeze()
            try:
                self.over.wait(chance.uniform(0.1, 3 * LEASE_SECONDS))
            finally:
                self.group.members[number].thaw()

    def _cut(self, chance: random.Random) -> None:
        with self._replica(chance) as number:
            self.wires[number].cut()

    def _stall(self, chance: random.Random) -> None:
        with self._replica(chance) as number, self.wires[number].stalled():
            self.over.wait(chance.uniform(0.1, 2 * LEASE_SECONDS))

    def _terminate(self, chance: random.Random) -> None:
        share = chance.random()
        with suppress(psycopg.OperationalError):  # it is just restarting
            self.server.execute(f"SELECT pg_terminate_backend(pid) {SESSIONS} AND random() < {share:.2f}")

    def _fill(self, chance: random.Random) -> None:
        with ExitStack() as held:
            with suppress(psycopg.OperationalError):  # that was the last one
                for _ in range(SLOTS):
                    held.enter_context(closing(psycopg.connect(self.server.url, connect_timeout=2)))
            self.over.wait(chance.uniform(0.1, LEASE_SECONDS))

    def _restart(self, how: signal.Signals) -> None:
        with self.of_server:
            assert self.server.pid
            os.kill(self.server.pid, how)
            self.server.stop()
            self.server.start()


@pytest.fixture
def bed(replicas: MakeReplicas, start_postgres: Callable[..., postgres.PostgresServer], sink: web.WebServer) -> Bed:
    """Three replicas that have begun to serve, on machines whose clocks differ by two hours."""
    server = start_postgres({"max_connections": f"{SLOTS}"})
    limits = {"attempts": 1, "cooldown": "0s", "breaker": 100_000, "rate": "100000/1h", "storm": "100000/10m"}
    once, again = request(sink, "/once/{{ labels.pod }}", method="POST"), request(sink, "/again/{{ labels.pod }}")
    twice = [request(sink, "/twice/{{ labels.pod }}/1", method="POST"), request(sink, "/twice/{{ labels.pod }}/2")]
    entries = [
        poke(sink, name="once", matchers=['alertname="Once"'], steps=[once], limits=limits),
        poke(sink, name="again", matchers=['alertname="Again"'], steps=[again], limits=limits),
        poke(sink, name="twice", matchers=['alertname="Twice"'], steps=twice, limits=limits),
    ]
    group = replicas(*entries, store=server.url, lease=f"{LEASE_SECONDS:g}s", recheck="500ms")
    wires = [Wire(server.host, server.port) for _ in CLOCKS]
    for by, wire in zip(CLOCKS, wires, strict=True):
        group.ends.enter_context(wire.running())
        store = server.url.replace(f":{server.port}", f":{wire.port}")
        group.start(store=store, module=ahead(by))
    return Bed(group, server, wires, sink)


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 2 * PATIENCE + 120)
def test_everything_at_once(bed: Bed) -> None:
    """Each alert that was accepted is decided, no POST is sent twice, and the audit is as it was written."""
    print(f"REMEDIATOR_CHAOS_SEED={SEED}")
    bed.sink.echo = slowly(random.Random(SEED))
    with ThreadPoolExecutor() as pool:
        tasks = [pool.submit(bed.happen, random.Random(f"{SEED}-{number}")) for number in range(AT_ONCE)]
        tasks.append(pool.submit(bed.tell, random.Random(f"{SEED}-alerts")))
        until = time.monotonic() + SECONDS
        wait_until(lambda: time.monotonic() > until or any(one.done() for one in tasks), SECONDS + 1, "the end")
        bed.over.set()
        for task in tasks:
            task.result(PATIENCE)
    print(f"{len(bed.accepted)} alerts were accepted; {dict(bed.happened)}")
    try:
        wait_until(lambda: not undecided(bed), PATIENCE, "every alert to be decided", every=0.5)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; there is {undecided(bed)}") from error
    sent = Counter(one.path for one in bed.sink.requests if one.method == "POST")
    assert {} == {path: count for path, count in sent.items() if count > 1}
    keys = {one.path: one.headers["Idempotency-Key"] for one in bed.sink.requests}
    assert len(keys) == len({(one.path, one.headers["Idempotency-Key"]) for one in bed.sink.requests})
    assert len(bed.accepted) > SECONDS  # else nothing was tried
    ends = Counter(bed.group.rows("state, reason"))
    print(dict(ends))
    assert "unexpected" not in {reason for _, reason in ends}
    assert any(one.path.startswith("/once/") for one in bed.sink.requests)
    verified(bed.group)


def slowly(chance: random.Random) -> Callable[[object], bytes]:
    """Answers that take a while, in which something may happen."""

    def answer(_asked: object) -> bytes:
        time.sleep(chance.uniform(0, 0.3))  # the server's own work
        return b"ok"

    return answer


def undecided(bed: Bed) -> dict[str, Any]:
    """The accepted alerts of which no run, or more than one, has come to its end."""
    with psycopg.connect(bed.group.store) as connection:
        query = "SELECT labels ->> 'pod', state, reason, message, lease_owner, not_before FROM run"
        rows = connection.execute(query).fetchall()
    found: dict[str, list[Any]] = {pod: [] for pod in bed.accepted}
    for pod, *row in rows:
        found.setdefault(pod, []).append(row)
    return {pod: rows for pod, rows in found.items() if len(rows) != 1 or rows[0][0] not in ENDS}
