"""Random histories of the engine, three replicas over one store: after every step what must always hold is checked.

The numbers in brackets are those of docs/architecture.md, "What must always hold". `REMEDIATOR_HYPOTHESIS=soak` takes
1,000,000 steps instead of 20,000, and must reach every transition.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select, text

from app.backends.actions import actions
from app.backends.checks import checks
from app.domain.durations import Rate
from app.domain.errors import ConflictError, NotFoundError
from app.domain.former_names import specification
from app.domain.obstacles import Hold
from app.domain.remediation import Limits, Mode, Purpose, Remediation
from app.domain.states import FINAL_STATES, TRANSITIONS, RunState, may_become
from app.engine import tenure
from app.engine.outcomes import undo
from app.engine.outcomes.retry import decide_again
from app.engine.stages import calling
from app.store.audit.chain import Entry
from app.store.audit.verify import verify
from app.store.db.schema import episode, run, run_episode
from app.store.gates import breakers, pauses
from app.store.gates.pauses import Held
from app.store.ledger import approvals
from app.store.ledger.approvals import DecisionKind, HumanDecision
from app.store.migrations.migrate import migrate
from tests.stateful.targets import ACTIONS, CHECKS, FAULTS, targets
from tests.stateful.world import LEASE, Clock, Faulty, Freeze, Replica, World
from tests.support.alerts import NOW, alert

SOAK = os.environ.get("REMEDIATOR_HYPOTHESIS") == "soak"
# PostgreSQL takes twice the time for a step.
STEPS = {"sqlite": 700_000, "postgresql": 300_000} if SOAK else {"sqlite": 10_000, "postgresql": 10_000}
STEPS_A_HISTORY = 100
REPLICAS = 3
DATABASES = 4
PODS = 3
SKEW = timedelta(seconds=4)
HOUR = timedelta(hours=1)
GARBAGE = b'{"version": "4", "alerts": [{"status": "firing"}]}'


def _entry(name: str, *steps: str, **fields: Any) -> dict[str, Any]:
    made = {
        "name": name,
        "summary": f"What is done about {name}.",
        "matchers": [f'alertname="{name}"'],
        "mode": "auto",
        "target": {"redis": {"instance": "cache", "database": "{{ labels.db }}"}},
        "limits": {"cooldown": "2m", "rate": "8/1h", "target_rate": "12/1d", "attempts": 2, "breaker": 4},
        "steps": [_step(step) for step in steps],
    }
    return made | fields


def _step(words: str) -> dict[str, Any]:
    action, _, value = words.partition(" ")
    step: dict[str, Any] = {"action": f"test.{action}", "timeout": "50ms"}
    return step | ({"with": {"to": value}} if value else {})


WELL = [{"check": "test.well", "timeout": "1ms"}]
SHORT = {"cooldown": "1m", "rate": "3/10m"}
CATALOG = [
    _entry("hit", "hit"),
    _entry("set", "set 5", verify=WELL, revert="on_resolved", revert_after="5m", settle="10m"),
    _entry(
        "ask",
        "hit",
        "set 7",
        mode="approve",
        undo_on_failure=True,
        verify=WELL,
        escalate=[{"steps": [_step("set 9")], "verify": WELL}],
    ),
    _entry("aim", "set {{ labels.level }}", settle="1m"),
    _entry(
        "climb",
        "set 3",
        verify=WELL,
        settle="2m",
        escalate=[{"steps": [_step("hit")]}],
        limits={"cooldown": "1m", "rate": "2/1h"},
    ),
]
CHANGED = [
    _entry("hit", "hit", limits={"cooldown": "5m", "rate": "3/1h", "attempts": 1}),
    *(one for one in CATALOG if one["name"] not in {"hit", "climb"}),
]
# Over 2 and 3 o'clock, which one night a year does not have and another one has twice.
ZONE = ZoneInfo("Europe/Berlin")
NIGHT = (time(1, 30), time(3, 30))
FREEZES = [
    {
        "name": "night",
        "summary": "Nothing is done about `hit` in the early morning.",
        "times": [{"start_time": "01:30", "end_time": "03:30"}],
        "location": ZONE.key,
        "remediations": ["hit"],
    }
]
BEGINNINGS = [NOW, datetime(2026, 3, 28, 23, 50, tzinfo=UTC), datetime(2026, 10, 24, 23, 20, tzinfo=UTC)]
PAUSED = [Held("all"), Held("remediation", "hit"), Held("target", "redis:cache/0")]
NAMES = ("alertname", "db", "pod", "level")
LEVELS = ("4", "6")  # of `aim`: two alerts of one target, two plans
WAITING = {RunState.DEFERRED, RunState.AWAITING_APPROVAL, RunState.VERIFYING, RunState.PENDING}
KINDS = [one["name"] for one in CATALOG]
replicas = st.integers(0, REPLICAS - 1)
places = st.tuples(st.integers(0, DATABASES - 1), st.integers(0, PODS - 1))
target_faults = st.sampled_from(["", "", "", *sorted(FAULTS)])
store_faults = st.sampled_from(["", "", "away", "crash before", "crash after"])


class Histories(RuleBasedStateMachine):
    """One store, its replicas, and what people, targets and clocks do to them."""

    store: ClassVar[str] = ""  # the URL of a migrated PostgreSQL database; empty: SQLite
    template: ClassVar[Path]
    steps_taken: ClassVar[int] = 0
    transitions: ClassVar[set[tuple[str, str]]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = Path(mkdtemp(dir=self.template.parent))
        self._clear_targets()
        self.world = World(self.home, [CATALOG, CHANGED], FREEZES)
        self.sent: set[tuple[str, ...]] = set()
        targets.objection = self.world.objection
        Clock.of_histories = Clock(self.world)
        self.known: dict[str, str] = {}
        self.admitted: set[str] = set()
        self.retried: Counter[tuple[str, str]] = Counter()
        self._step(self._open())

    def _clear_targets(self) -> None:
        targets.hits.clear()
        targets.values.clear()
        targets.writers.clear()
        targets.crossed.clear()
        targets.objections.clear()
        targets.fault, targets.hidden, targets.is_well, targets.then = "", "", True, None

    async def _open(self) -> None:
        if not self.store:
            file = self.home / "store.db"
            shutil.copy(self.template, file)
            shared = Faulty(f"sqlite:///{file}")
            for _ in range(REPLICAS):
                self.world.add(shared)
            return
        for _ in range(REPLICAS):
            self.world.add(Faulty(self.store))
        async with self.world.replicas[0].database.write() as tx:
            tables = (
                "notification, episode, run, run_episode, step, event, seal, hold, breaker, storm, standing, message"
            )
            await tx.execute(text(f"TRUNCATE {tables} CASCADE"))

    def teardown(self) -> None:
        """Let everything come to rest, and look once more at all of it."""
        try:
            self._step(self._come_to_rest())
        finally:
            self._step(self._close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.home)

    async def _close(self) -> None:
        for database in {id(one.database): one.database for one in self.world.replicas}.values():
            await database.close()

    def _step(self, work: Any) -> Any:
        # Not asyncio.Runner: it sets a handler of SIGINT for each call, a tenth of the time of a history.
        return self.loop.run_until_complete(work)

    def _of(self, number: int) -> Replica:
        return self.world.replicas[number]

    @initialize(now=st.sampled_from(BEGINNINGS))
    def begin(self, now: datetime) -> None:
        """Some day, or shortly before a clock change."""
        self.world.now = now

    # What Alertmanager sends

    @rule(
        at=replicas,
        sent=st.lists(
            st.tuples(
                st.sampled_from(KINDS),
                st.integers(0, DATABASES - 1),
                st.sampled_from(["a", "b"]),
                st.sampled_from(["firing", "firing", "resolved"]),
                st.sampled_from([0, 0, 30, 400]),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def deliver(self, at: int, sent: list[tuple[str, int, str, str, int]]) -> None:
        """New alerts, repeats, resolves, of both Prometheus of a pair, some of them old."""
        now = self.world.now
        alerts = [
            alert(
                status,
                starts_at=now - timedelta(seconds=age),
                ends_at=now,
                alertname=kind,
                db=str(number),
                level=LEVELS[number % 2],
                prometheus_replica=replica,
            )
            for kind, number, replica, status, age in sent
        ]
        self._step(self.world.record(self._of(at), alerts))

    @rule(at=replicas)
    def deliver_garbage(self, at: int) -> None:
        """Something that an earlier release might have accepted."""
        self._step(self.world.record(self._of(at), [], GARBAGE))

    # Stretches of a history that random single steps seldom put together

    @rule(pair=st.permutations(range(REPLICAS)), kind=st.sampled_from(KINDS), number=places, fault=target_faults)
    def fire(self, pair: list[int], kind: str, number: tuple[int, int], fault: str) -> None:
        """An alert fires and two replicas do what is to be done, at a target that may fail or kill them."""
        targets.fault = fault
        self._send(pair[0], kind, number, "firing")
        self._step(self._together(self._of(pair[0]), self._of(pair[1])))

    @rule(pair=st.permutations(range(REPLICAS)), kind=st.sampled_from(KINDS), number=places)
    def flap(self, pair: list[int], kind: str, number: tuple[int, int]) -> None:
        """An alert resolves and fires again."""
        self._send(pair[0], kind, number, "resolved")
        self.world.now += timedelta(seconds=2)
        self._send(pair[1], kind, number, "firing")
        self._step(self._together(self._of(pair[0]), self._of(pair[1])))

    @rule(pair=st.permutations(range(REPLICAS)), kind=st.sampled_from(KINDS), number=places, fault=target_faults)
    def die_and_take_over(self, pair: list[int], kind: str, number: tuple[int, int], fault: str) -> None:
        """A replica takes an alert as far as its step, dies there, and another one finds what it left."""
        self._send(pair[0], kind, number, "firing")
        targets.fault = fault
        self._step(self._work(self._of(pair[0])))
        self.world.reborn(self._of(pair[0]))
        self.world.now += LEASE + timedelta(seconds=10)
        self._step(self._work(self._of(pair[1])))
        self._step(self._haunt(self._of(pair[0])))

    @rule(pair=st.permutations(range(REPLICAS)), kind=st.sampled_from(KINDS), number=places)
    def overtake(self, pair: list[int], kind: str, number: tuple[int, int]) -> None:
        """A replica is frozen just before it acts; it goes on when another one has long been there."""
        self._send(pair[0], kind, number, "firing")
        self._step(self._up_to_acting(self._of(pair[0])))
        self.world.reborn(self._of(pair[0]))
        self.world.now += LEASE + timedelta(seconds=10)
        self._step(self.world.claim(self._of(pair[1]), 5))
        self._step(self._haunt(self._of(pair[0])))
        self._step(self._work(self._of(pair[1])))

    @rule(pair=st.permutations(range(REPLICAS)), kind=st.sampled_from(["climb", "ask"]), number=places)
    def resolve_between_rungs(self, pair: list[int], kind: str, number: tuple[int, int]) -> None:
        """A rung is over, the next one is still to be decided or approved, and the alert resolves by itself."""
        one, other = self._of(pair[0]), self._of(pair[1])
        self._send(pair[0], kind, number, "firing")
        self._step(self._work(one))
        self._step(self._approve(one))
        self.world.now += timedelta(minutes=3)
        self._step(self._look_once(one))
        self._send(pair[1], kind, number, "resolved")
        self._step(self._work(other))
        self._step(self._work(one))

    async def _look_once(self, replica: Replica) -> None:
        await self.world.claim(replica, 5)
        for run_id in sorted(replica.held):
            if replica.held[run_id].state is RunState.VERIFYING:
                await self.world.advance(replica, run_id)

    async def _up_to_acting(self, replica: Replica) -> None:
        await self.world.take_in(replica)
        await self.world.claim(replica, 5)
        for run_id in sorted(replica.held):
            if replica.held[run_id].state in {RunState.PENDING, RunState.DEFERRED}:
                await self.world.advance(replica, run_id)

    @rule(at=replicas)
    def approve(self, at: int) -> None:
        """Somebody says yes to whatever asks."""
        self._step(self._approve(self._of(at)))

    async def _approve(self, replica: Replica) -> None:
        for row in await self.world.runs():
            if row.state == RunState.AWAITING_APPROVAL:
                async with replica.database.write(lock="admission") as tx:
                    await approvals.decide(tx, row.id, HumanDecision(DecisionKind.APPROVE, "ann"), replica.clock())
        await self._work(replica)

    @rule(at=replicas, verb=st.sampled_from([DecisionKind.REJECT, DecisionKind.CANCEL]))
    def refuse(self, at: int, verb: DecisionKind) -> None:
        """Somebody says no to whatever asks."""
        self._step(self._refuse(self._of(at), verb))

    async def _refuse(self, replica: Replica, verb: DecisionKind) -> None:
        for row in await self.world.runs():
            if row.state == RunState.AWAITING_APPROVAL:
                async with replica.database.write(lock="admission") as tx:
                    await approvals.decide(tx, row.id, HumanDecision(verb, "ann"), replica.clock())

    def _send(self, at: int, kind: str, place: tuple[int, int], status: str) -> None:
        now = self.world.now
        self._step(self.world.record(self._of(at), [self._alert(kind, place, status, now)]))

    def _alert(
        self,
        kind: str,
        place: tuple[int, int],
        status: str,
        starts_at: datetime,
        *,
        prometheus: str = "a",
        text: str = "",
    ) -> dict[str, Any]:
        """One alert about a place, which must be known from then on."""
        number, pod = place
        labels = {"alertname": kind, "db": str(number), "pod": str(pod), "level": LEVELS[pod % 2]}
        self.sent.add(tuple(labels.values()))
        labels["prometheus_replica"] = prometheus
        return alert(status, starts_at=starts_at, ends_at=self.world.now, annotations={"text": text}, **labels)

    @rule(
        pair=st.permutations(range(REPLICAS)),
        kind=st.sampled_from(KINDS),
        number=places,
        apart=st.sampled_from([30, 400, 3500, 30_000]),
        waits=st.lists(st.sampled_from([1, 40, 700]), min_size=2, max_size=6),
    )
    def deliver_in_turn(
        self, pair: list[int], kind: str, number: tuple[int, int], apart: int, waits: list[int]
    ) -> None:
        """Both Alertmanagers of a pair send one alert, with a start of their own each."""
        starts = (self.world.now - timedelta(seconds=apart), self.world.now)
        before = self._opened(kind, number)
        for turn, wait in enumerate(waits):
            one = self._alert(kind, number, "firing", starts[turn % 2])
            self._step(self.world.record(self._of(pair[turn % 2]), [one]))
            self._step(self._work(self._of(pair[turn % 2])))
            self.world.now += timedelta(seconds=wait)
        assert len(self._opened(kind, number)) <= len(before) + 1, "one alert that fires has opened two episodes (1)"

    def _opened(self, kind: str, place: tuple[int, int]) -> list[Any]:
        """Tell the episodes of an alert, the newest last."""
        wanted = (kind, str(place[0]), str(place[1]))
        found = self._step(self.world.episodes())
        return [one for one in found if tuple(one.labels.get(name) for name in ("alertname", "db", "pod")) == wanted]

    @rule(at=replicas, kind=st.sampled_from(KINDS), number=places, late=st.booleans())
    def lose_resolves(self, at: int, kind: str, number: tuple[int, int], late: bool) -> None:
        """Both Prometheus of a pair fire, no resolve arrives or one comes late, and hours later they fire again."""
        first = self.world.now
        for begins in (first, first + 8 * HOUR):
            self.world.now = begins
            both = [self._alert(kind, number, "firing", begins, prometheus=one) for one in ("a", "b")]
            self._step(self.world.record(self._of(at), both))
            self._step(self._take_all_in(self._of(at)))
        if late:
            old = self._alert(kind, number, "resolved", first, prometheus="b")
            old["endsAt"] = (first + timedelta(minutes=10)).isoformat()
            self._step(self.world.record(self._of(at), [old]))
            self._step(self._take_all_in(self._of(at)))
        newest = self._opened(kind, number)[-1]
        assert newest.closed_at is None, "an incident is over that nobody has said to be over (5)"
        assert newest.starts_at > first, "an incident was taken for the one before (5)"

    async def _take_all_in(self, replica: Replica) -> None:
        for _ in range(10):
            await self.world.take_in(replica)
            if not await self.world.waiting():
                return

    @rule(at=replicas, kinds=st.permutations(KINDS), number=places)
    def deliver_oversized(self, at: int, kinds: list[str], number: tuple[int, int]) -> None:
        """Of three alerts of a notification one is too long, one cannot be kept, and one is as any other."""
        now = self.world.now
        long = self._alert(kinds[0], number, "firing", now, text="x" * 70_000)
        plain = self._alert(kinds[1], number, "firing", now)
        odd = alert("firing", starts_at=now, annotations=None, **{"l" * 1_100: "x"})
        self._step(self.world.record(self._of(at), [long, odd, plain]))

    # What engines do

    @rule(at=replicas, fault=store_faults)
    def take_in(self, at: int, fault: str) -> None:
        """A batch, in which the process may die or the store go away."""
        self._of(at).database.fault = fault
        self._step(self.world.take_in(self._of(at)))

    @rule(at=replicas, limit=st.integers(1, 3), fault=store_faults)
    def claim(self, at: int, limit: int, fault: str) -> None:
        """Lease what is due."""
        self._of(at).database.fault = fault
        self._step(self.world.claim(self._of(at), limit))

    @rule(at=replicas, which=st.integers(0, 5), fault=store_faults)
    def advance(self, at: int, which: int, fault: str) -> None:
        """One stage of one run."""
        replica = self._of(at)
        held = sorted(replica.held)
        if held:
            replica.database.fault = fault
            self._step(self.world.advance(replica, held[which % len(held)]))

    @rule(at=replicas)
    def work(self, at: int) -> None:
        """Claim what is due and take it as far as it goes."""
        self._step(self._work(self._of(at)))

    async def _work(self, replica: Replica) -> bool:
        await self.world.take_in(replica)
        claimed = await self.world.claim(replica, 5)
        for _ in range(30):
            if not replica.held:
                break
            await self.world.advance(replica, min(replica.held))
        return claimed > 0

    @rule(pair=st.permutations(range(REPLICAS)))
    def race(self, pair: list[int]) -> None:
        """Two replicas do all that is due at the same time."""
        self._step(self._together(self._of(pair[0]), self._of(pair[1])))

    async def _together(self, one: Replica, other: Replica) -> None:
        await asyncio.gather(self._work(one), self._work(other))

    @rule(at=replicas)
    def renew(self, at: int) -> None:
        """Keep the leases."""
        self._step(self.world.renew(self._of(at)))

    @rule(at=replicas)
    def judge(self, at: int) -> None:
        """Look which runs did not help."""
        self._step(self.world.judge(self._of(at)))

    @rule(at=replicas)
    def seal(self, at: int) -> None:
        """Seal the audit."""
        self._step(self.world.seal(self._of(at)))

    # What goes wrong

    @rule(at=replicas)
    def crash(self, at: int) -> None:
        """A process dies between two stages."""
        self.world.reborn(self._of(at))

    @rule(at=replicas)
    def haunt(self, at: int) -> None:
        """A process that was frozen goes on with what it believes to hold."""
        self._step(self._haunt(self._of(at)))

    async def _haunt(self, replica: Replica) -> None:
        if not replica.ghosts:
            return
        parts, held = replica.ghosts[-1]
        (row,) = [row for row in await self.world.runs() if row.id == held.id] or (None,)
        lost = row is None or (row.lease_owner, row.lease_epoch) != (parts.owner, held.lease_epoch)
        before = (targets.hits.copy(), targets.values.copy())
        await self.world.haunt(replica)
        assert not lost or before == (targets.hits, targets.values), "who lost a lease has acted on a target (3)"

    @rule(fault=st.sampled_from(sorted(FAULTS)))
    def break_target(self, fault: str) -> None:
        """The next call of an action meets this."""
        targets.fault = fault

    @rule(how=st.sampled_from(["", "", "transient", "permanent"]))
    def hide_targets(self, how: str) -> None:
        """Targets cannot be read, so that nothing can be planned, until they can again."""
        targets.hidden = how

    @rule(well=st.booleans())
    def sicken(self, well: bool) -> None:
        """Verification holds, or does not."""
        targets.is_well = well

    @rule(seconds=st.sampled_from([1, 29, 31, 65, 125, 125, 301, 605, 3601, 8 * 3600]))
    def wait(self, seconds: int) -> None:
        """Time goes on."""
        self.world.now += timedelta(seconds=seconds)

    @rule(at=replicas, seconds=st.integers(-int(SKEW.total_seconds()), int(SKEW.total_seconds())))
    def skew(self, at: int, seconds: int) -> None:
        """The clock of one replica is off."""
        self._of(at).clock.skew = timedelta(seconds=seconds)

    @rule(at=replicas, variant=st.integers(0, 1))
    def reload(self, at: int, variant: int) -> None:
        """One replica loads a catalog; the others may have another one."""
        self._of(at).catalog[0] = self.world.load(variant)

    # What people do

    @rule(at=replicas, verb=st.sampled_from([*DecisionKind]), which=st.integers(0, 20))
    def decide(self, at: int, verb: DecisionKind, which: int) -> None:
        """Approve, reject, cancel or drop any run."""
        self._step(self._decide(self._of(at), verb, which))

    async def _decide(self, replica: Replica, verb: DecisionKind, which: int) -> None:
        rows = await self.world.runs()
        if not rows:
            return
        try:
            async with replica.database.write(lock="admission") as tx:
                await approvals.decide(tx, rows[which % len(rows)].id, HumanDecision(verb, "ann"), replica.clock())
        except (ConflictError, NotFoundError):
            return

    @rule(at=replicas, which=st.integers(0, 20), verb=st.sampled_from(["retry", "undo"]))
    def ask(self, at: int, which: int, verb: str) -> None:
        """Have a run decided again, or taken back."""
        self._step(self._ask(self._of(at), which, verb))

    async def _ask(self, replica: Replica, which: int, verb: str) -> None:
        rows = await self.world.runs()
        if not rows:
            return
        chosen, entry = rows[which % len(rows)].id, Entry("asked for", actor="ann")
        try:
            async with replica.database.write(lock="intake") as tx:
                if verb == "undo":
                    await undo.ask(tx, chosen, entry, replica.clock())
                    return
                again = await decide_again(tx, chosen, replica.catalog[0], entry, replica.clock())
                linked = await tx.execute(select(run_episode.c.episode_id).where(run_episode.c.run_id == again.id))
                self.retried.update((one, again.remediation.name) for one in linked.scalars())
        except (ConflictError, NotFoundError):
            return

    @rule(at=replicas, on=st.sampled_from(PAUSED))
    def pause(self, at: int, on: Held) -> None:
        """For a minute."""
        self._step(self._pause(self._of(at), on))

    async def _pause(self, replica: Replica, on: Held) -> None:
        now = replica.clock()
        until = now + timedelta(minutes=1)
        async with replica.database.write(lock="holds") as tx:
            await pauses.put(tx, on, Hold(on.scope, "ann", "because", until), now)
        if on.scope != "remediation":
            self.world.paused_until[on.subject] = until

    @rule(pair=st.permutations(range(REPLICAS)), kind=st.sampled_from(KINDS), number=places)
    def pause_between(self, pair: list[int], kind: str, number: tuple[int, int]) -> None:
        """Somebody pauses everything while a step is applied: no further step begins, here or anywhere."""
        one, other = self._of(pair[0]), self._of(pair[1])
        targets.then = lambda: self._pause(other, Held("all"))
        self._send(pair[0], kind, number, "firing")
        self._step(self._approve(one))
        self._step(self._work(other))

    @rule(at=replicas, ceiling=st.sampled_from([Mode.OBSERVE, Mode.AUTO, Mode.AUTO]))
    def restart(self, at: int, ceiling: Mode) -> None:
        """A replica is stopped and started with another ceiling."""
        self._of(at).ceiling = ceiling
        self.world.reborn(self._of(at))
        self._of(at).ghosts.clear()  # it was stopped in order: nothing of it goes on

    @rule(pair=st.permutations(range(REPLICAS)), kind=st.sampled_from(KINDS), number=places, moment=st.integers(1, 24))
    def freeze_anywhere(self, pair: list[int], kind: str, number: tuple[int, int], moment: int) -> None:
        """A replica stands still where a transaction begins or ends, and goes on when another one has done its work."""
        self._send(pair[0], kind, number, "firing")
        self._step(self._freeze(self._of(pair[0]), self._of(pair[1]), moment))

    async def _freeze(self, one: Replica, other: Replica, moment: int) -> None:
        freeze = one.database.freeze = Freeze(moment)
        working = asyncio.create_task(self._work(one))
        frozen = asyncio.create_task(freeze.is_frozen.wait())
        await asyncio.wait({working, frozen}, return_when=asyncio.FIRST_COMPLETED)
        one.database.freeze = None
        frozen.cancel()
        if not working.done():
            self.world.now += LEASE + timedelta(seconds=10)
            await self._work(other)
        freeze.is_woken.set()
        await working

    @rule(at=replicas, name=st.sampled_from(KINDS))
    def close_breaker(self, at: int, name: str) -> None:
        """By hand."""
        self._step(self._close_breaker(self._of(at), name))

    async def _close_breaker(self, replica: Replica, name: str) -> None:
        async with replica.database.write(lock="admission") as tx:
            await breakers.close(tx, name, replica.clock())

    # What must hold

    @invariant()
    def always(self) -> None:
        """All that can be seen in the store and at the targets at any time."""
        type(self).steps_taken += 1
        rows = self._step(self.world.runs())
        assert [] == [repr(one) for one in self.world.surprises], self.world.told()
        assert [] == targets.crossed, "two runs worked on one target at the same time (2)"
        assert [] == targets.objections
        self._one_effect()
        self._nothing_unasked(rows)
        self._final_is_final(rows)
        self._one_run_a_target(rows)
        self._within_limits(rows)

    def _one_effect(self) -> None:
        twice = [hit for hit, times in targets.hits.items() if times > 1]
        assert [] == twice, "what must not be repeated was done twice by one run (3)"

    def _nothing_unasked(self, rows: list[Any]) -> None:
        admitted = {row.id for row in rows if row.admitted_at is not None}
        assert set() == targets.writers - admitted, "a target was touched without an admission (4)"

    def _final_is_final(self, rows: list[Any]) -> None:
        for row in rows:
            before = self.known.get(row.id)
            assert before not in FINAL_STATES or before == row.state, "a run that had ended went on"
            self.known[row.id] = row.state

    def _one_run_a_target(self, rows: list[Any]) -> None:
        held = Counter(row.target_key for row in rows if row.holds_target)
        assert all(count == 1 for count in held.values()), "two runs hold one target (2)"
        assert all(row.state not in FINAL_STATES for row in rows if row.holds_target or row.active)

    def _within_limits(self, rows: list[Any]) -> None:
        """Hold each new admission to the limits it was admitted with, by what the ledger says of those before."""
        by_id = {row.id: row for row in rows}
        let_through = {row.id for row in rows if row.admitted_at}
        if let_through == self.admitted:
            return
        specs = self._step(self.world.admissions())
        assert let_through == {*specs}, "an admission is not in the audit (8)"
        admitted = [by_id[one] for one in specs if by_id[one].purpose == Purpose.REMEDY]
        for number, row in enumerate(admitted):
            frozen = all(_is_frozen(row, row.admitted_at + skew) for skew in (-SKEW, SKEW))
            assert not frozen, "acted within a freeze (14)"
            if row.id not in self.admitted:
                limits = Remediation.model_validate(specification(specs[row.id])).limits
                _hold_to(limits, row, admitted[:number])
        self.admitted = let_through

    # In the end

    async def _come_to_rest(self) -> None:
        """Nothing is lost: given time and working replicas, every alert gets its decision (3, 7)."""
        targets.fault, targets.hidden, targets.is_well = "", "", True
        for replica in self.world.replicas:
            replica.database.fault, replica.clock.skew, replica.ceiling = "", timedelta(), Mode.AUTO
            replica.ghosts.clear()
            replica.catalog[0] = self.world.load(0)
            self.world.reborn(replica)
            replica.ghosts.clear()
        first = self.world.replicas[0]
        for wait in (LEASE + timedelta(seconds=1), *[timedelta(minutes=6)] * 4, *[HOUR] * 3):
            self.world.now += wait
            for _ in range(20):
                if not await self._work(first):
                    break
        await self.world.seal(first)
        assert [] == [repr(one) for one in self.world.surprises], self.world.told()
        assert 0 == await self.world.waiting(), "a notification was not taken in (3)"
        known = {tuple(one.labels.get(name, "") for name in NAMES) for one in await self.world.episodes()}
        assert set() == self.sent - known, "an alert was never recorded (11)"
        rows = await self.world.runs()
        for row in rows:
            waits = row.state in {RunState.DEFERRED, RunState.AWAITING_APPROVAL, RunState.VERIFYING, RunState.PENDING}
            assert row.state in FINAL_STATES or (waits and row.not_before > self.world.now - HOUR), (
                "a run was forgotten (7)"
            )
            assert row.reason is not None or row.state not in FINAL_STATES | {RunState.DEFERRED}, (
                "no reason is given (8)"
            )
        await self._every_alert_decided()
        await self._shared_only_where_alike()
        for run_id, states in (await self.world.states()).items():
            for before, after in pairwise(filter(None, states)):
                allowed = before == after or may_become(RunState(before), RunState(after))
                assert allowed, f"{run_id} went from {before} to {after}"
                self.transitions.add((before, after))
        report = await verify(first.database)
        assert [] == report.findings, "the audit is not intact"

    async def _every_alert_decided(self) -> None:
        """Each episode has a run of each remediation that it matched, and began no more than its attempts (1).

        A run that other alerts of the target began is shared with it too; such a run counts for those.
        """
        async with self.world.replicas[0].database.read() as tx:
            columns = select(episode.c.id, episode.c.matched, episode.c.fingerprint)
            matched = {row.id: (row.matched, row.fingerprint) for row in await tx.execute(columns)}
            links = (await tx.execute(select(run_episode.c.run_id, run_episode.c.episode_id))).all()
        rows = {row.id: row for row in await self.world.runs() if row.purpose == Purpose.REMEDY}
        for one, (names, fingerprint) in matched.items():
            runs = [rows[link.run_id] for link in links if link.episode_id == one and link.run_id in rows]
            for name in names:
                told = [
                    (row.fingerprint, row.attempt, row.state, row.reason) for row in runs if row.remediation == name
                ]
                begun = sum(row[0] == fingerprint for row in told)
                allowed = 2 + 2 * self.retried[one, name]
                assert told, f"an alert was not decided about {name} (1)"
                story = await self.world.story([row.id for row in runs if row.remediation == name])
                assert begun <= allowed, f"{fingerprint} triggered {name} too often (1): {told}\n{story}"

    async def _shared_only_where_alike(self) -> None:
        """A run that several alerts share has done what each of them asks for (2, 11)."""
        async with self.world.replicas[0].database.read() as tx:
            query = select(run_episode.c.run_id, episode.c.labels["level"].as_string())
            query = query.join(episode, episode.c.id == run_episode.c.episode_id).join(
                run, run.c.id == run_episode.c.run_id
            )
            levels: dict[str, set[str]] = {}
            for run_id, level in await tx.execute(
                query.where(run.c.remediation == "aim", run.c.started_at.is_not(None))
            ):
                levels.setdefault(run_id, set()).add(level)
        assert [] == [one for one, asked in levels.items() if len(asked) > 1], (
            "one plan for alerts that ask for two (2)"
        )


def _is_frozen(row: Any, at: datetime) -> bool:
    """Whether the clock on the wall says so, as somebody would read it there."""
    return row.remediation == "hit" and NIGHT[0] <= at.astimezone(ZONE).time() < NIGHT[1]


def _hold_to(limits: Limits, row: Any, before: list[Any]) -> None:
    same = [one for one in before if one.remediation == row.remediation]
    there = [one for one in before if one.target_key == row.target_key]
    assert all(_has_room(rate, same, row) for rate in limits.rate), "more than the rate allows (5)"
    assert all(_has_room(rate, there, row) for rate in limits.target_rate), "more than the target's rate (5)"
    ends = [one.finished_at for one in there if one.finished_at and one.finished_at < row.admitted_at - SKEW]
    rested = all(row.admitted_at - end >= limits.cooldown - 2 * SKEW for end in ends)
    assert rested, "acted before the cooldown was over (5)"


def _has_room(rate: Rate, before: list[Any], row: Any) -> bool:
    recent = [one for one in before if one.admitted_at > row.admitted_at - rate.window]
    return len(recent) < rate.count


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite store that histories copy."""
    file = tmp_path_factory.mktemp("stateful") / "template.db"

    async def make() -> None:
        database = Faulty(f"sqlite:///{file}")
        await migrate(database)
        await database.close()

    asyncio.run(make())
    return file


@pytest.fixture(autouse=True)
def _vocabulary(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engine finds the actions and checks of this test; it logs nothing, twenty thousand times."""
    for name, action in ACTIONS.items():
        monkeypatch.setitem(actions(), name, action)
    for name, check in CHECKS.items():
        monkeypatch.setitem(checks(), name, check)
    for module in (tenure, calling):  # a lease ends by the time of the history
        monkeypatch.setattr(module, "steady", lambda: Clock.of_histories.steady())  # noqa: PLW0108 - that history is not there yet
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.mark.long
@pytest.mark.timeout(20 * 3600 if SOAK else 2400)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_must_always_hold(kind: str, template: Path, request: pytest.FixtureRequest) -> None:
    """As many random histories as it takes for the steps."""
    url = ""
    if kind == "postgresql":
        url = str(request.getfixturevalue("postgres_database"))

        async def make() -> None:
            database = Faulty(url)
            await migrate(database)
            await database.close()

        asyncio.run(make())
    machine = type(
        "Machine", (Histories,), {"store": url, "template": template, "steps_taken": 0, "transitions": set()}
    )
    chosen = settings(
        max_examples=50,
        stateful_step_count=STEPS_A_HISTORY,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    while machine.steps_taken < STEPS[kind]:
        run_state_machine_as_test(machine, settings=chosen)
    assert machine.steps_taken >= STEPS[kind]
    every = {(before, after) for before, follow in TRANSITIONS.items() for after in follow}
    assert not SOAK or set() == every - machine.transitions, "no history has reached these transitions"
