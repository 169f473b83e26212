"""Random histories of the engine, three replicas over one store: after every step what must always hold is checked.

The numbers in brackets are those of docs/architecture.md, "What must always hold". `REMEDIATOR_HYPOTHESIS=soak` takes
1,000,000 steps instead of 20,000.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select, text

from app.actions.registry import actions
from app.checks.registry import checks
from app.domain.durations import Rate
from app.domain.errors import ConflictError, NotFoundError
from app.domain.obstacles import Hold
from app.domain.remediation import Limits, Purpose, Remediation
from app.domain.states import FINAL_STATES, RunState, may_become
from app.engine import undoing
from app.engine.again import decide_again
from app.store import approvals, breakers, holds
from app.store.approvals import Verb, Word
from app.store.events import Entry
from app.store.holds import Held
from app.store.migrate import migrate
from app.store.schema import episode, run_episode
from app.store.verifying import verify
from tests.stateful.targets import ACTIONS, CHECKS, FAULTS, targets
from tests.stateful.world import LEASE, Faulty, Replica, World
from tests.support.alerts import alert

SOAK = os.environ.get("REMEDIATOR_HYPOTHESIS") == "soak"
STEPS = 500_000 if SOAK else 10_000  # for each of the two stores
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
    return step | ({"with": {"to": int(value)}} if value else {})


WELL = [{"check": "test.well", "timeout": "1ms"}]
SHORT = {"cooldown": "1m", "rate": "3/10m"}
CATALOG = [
    _entry("hit", "hit"),
    _entry("set", "set 5", verify=WELL, revert="on_resolved", revert_after="5m", settle="10m"),
    _entry("ask", "hit", "set 7", mode="approve", undo_on_failure=True, verify=WELL),
    _entry(
        "climb", "set 3", verify=WELL, escalate=[{"steps": [_step("hit")]}], limits={"cooldown": "1m", "rate": "2/1h"}
    ),
]
CHANGED = [
    _entry("hit", "hit", limits={"cooldown": "5m", "rate": "3/1h", "attempts": 1}),
    *(one for one in CATALOG if one["name"] not in {"hit", "climb"}),
]
PAUSED = [Held("all"), Held("remediation", "hit"), Held("target", "redis:cache/0")]
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

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = Path(mkdtemp(dir=self.template.parent))
        self._clear_targets()
        self.world = World(self.home, [CATALOG, CHANGED])
        self.known: dict[str, str] = {}
        self.admitted: set[str] = set()
        self.retried: Counter[tuple[str, str]] = Counter()
        self._step(self._open())

    def _clear_targets(self) -> None:
        targets.hits.clear()
        targets.values.clear()
        targets.writers.clear()
        targets.crossed.clear()
        targets.fault, targets.is_well = "", True

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
                    await approvals.decide(tx, row.id, Word(Verb.APPROVE, "ann"), replica.clock())
        await self._work(replica)

    def _send(self, at: int, kind: str, place: tuple[int, int], status: str) -> None:
        now = self.world.now
        number, pod = place
        labels = {"alertname": kind, "db": str(number), "pod": str(pod), "prometheus_replica": "a"}
        one = alert(status, starts_at=now, ends_at=now, **labels)
        self._step(self.world.record(self._of(at), [one]))

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

    @rule(at=replicas, verb=st.sampled_from([*Verb]), which=st.integers(0, 20))
    def decide(self, at: int, verb: Verb, which: int) -> None:
        """Approve, reject, cancel or drop any run."""
        self._step(self._decide(self._of(at), verb, which))

    async def _decide(self, replica: Replica, verb: Verb, which: int) -> None:
        rows = await self.world.runs()
        if not rows:
            return
        try:
            async with replica.database.write(lock="admission") as tx:
                await approvals.decide(tx, rows[which % len(rows)].id, Word(verb, "ann"), replica.clock())
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
                    await undoing.ask(tx, chosen, entry, replica.clock())
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
        async with replica.database.write(lock="holds") as tx:
            await holds.put(tx, on, Hold(on.scope, "ann", "because", now + timedelta(minutes=1)), now)

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
        assert [] == self.world.surprises
        assert [] == targets.crossed, "two runs worked on one target at the same time (2)"
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
            if row.id not in self.admitted:
                limits = Remediation.model_validate(specs[row.id]).limits
                _hold_to(limits, row, admitted[:number])
        self.admitted = let_through

    # In the end

    async def _come_to_rest(self) -> None:
        """Nothing is lost: given time and working replicas, every alert gets its decision (3, 7)."""
        targets.fault, targets.is_well = "", True
        for replica in self.world.replicas:
            replica.database.fault, replica.clock.skew = "", timedelta()
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
        assert [] == self.world.surprises
        assert 0 == await self.world.waiting(), "a notification was not taken in (3)"
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
        for run_id, states in (await self.world.states()).items():
            for before, after in pairwise(filter(None, states)):
                allowed = before == after or may_become(RunState(before), RunState(after))
                assert allowed, f"{run_id} went from {before} to {after}"
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
                assert begun <= allowed, f"{fingerprint} triggered {name} too often (1): {told}"


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
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.mark.timeout(20 * 3600 if SOAK else 900)
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
    machine = type("Machine", (Histories,), {"store": url, "template": template, "steps_taken": 0})
    chosen = settings(
        max_examples=50,
        stateful_step_count=STEPS_A_HISTORY,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    while machine.steps_taken < STEPS:
        run_state_machine_as_test(machine, settings=chosen)
    assert machine.steps_taken >= STEPS
