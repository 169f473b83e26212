"""Claims due runs, advances them under leases that it renews, and lets go of them when it stops.

One per process. It knows nothing of the stages; it only calls `pipeline.advance`.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import datetime

import structlog

from app.domain.errors import LeaseLostError, StoreUnavailableError, TransactionLostError
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.clock import steady
from app.engine.context import EngineContext
from app.engine.outcomes import unreadable
from app.engine.pipeline import advance
from app.engine.precedence import keep_current
from app.engine.stages.closing import close
from app.engine.tenure import Tenure
from app.store.audit.chain import Entry
from app.store.db.notify import announce
from app.store.db.pace import work_in_background, work_without_pause
from app.store.db.rerun import rerun
from app.store.ledger import leases, runs
from app.store.ledger.leases import Claimant
from app.store.ledger.runs import Run

_LONGEST_NAP_SECONDS = 1.0  # another replica may die or hand work over without a wake-up
_CLAIM, _HURRIED_CLAIM = 64, 8  # runs at once; while notifications are being received
_KEPT = 4  # runs out of those just recorded here, while others may do them too
_APART_SECONDS = 0.1  # two looks for others while more are in work than may go on at once
_HEADSTART_SECONDS = 0.02  # of runs that were handed over, before others are looked for
_AGAIN_SECONDS = 0.05  # at most, before a stage is repeated whose transaction was lost
_LOST = "the lease was lost; another replica works on this run"
log = structlog.get_logger()


class Worker:
    """The engine's loop over the ledger."""

    def __init__(self, parts: EngineContext) -> None:
        self._parts = parts
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._deciding = asyncio.Semaphore(parts.policy.workers)
        self._applying = asyncio.Semaphore(parts.policy.workers)
        self._stages: dict[str, RunState] = {}
        self._fewer = asyncio.Event()  # of those than before that count

    async def work_forever(self) -> None:
        """Claim and start due runs, until cancelled."""
        work_in_background()
        work_without_pause()  # a run leased by take-in ages until it is begun
        while True:
            try:
                while self._adopt() and self._parts.handover.room > 0:  # else more may wait than was handed over
                    await self._woken(_HEADSTART_SECONDS)
                nap = await self._claim()
            except StoreUnavailableError as error:
                log.debug("the worker waits for the store", error=error.message)
                nap = _LONGEST_NAP_SECONDS
            except Exception:  # the worker loop: no run may stop the others
                log.exception("the worker could not claim runs")
                nap = _LONGEST_NAP_SECONDS
            await self._until_few()
            await self._woken(nap)

    async def _woken(self, seconds: float) -> None:
        """Return when there is something to do, or after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # not wait_for, which in Python 3.11 can swallow a cancellation
                await self._parts.work.wait()
        self._parts.work.clear()

    async def _until_few(self) -> None:
        """While there is enough to go on with, one look serves for many that have ended meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_APART_SECONDS):
                while self._busy() > self._parts.policy.workers:
                    self._fewer.clear()
                    await self._fewer.wait()

    def _adopt(self) -> bool:
        """Begin the runs that take-in has leased for this worker; say whether there were any."""
        given = self._parts.handover.take()
        for run, leased_at in given:
            if run.id not in self._tasks:
                self._begin(run, leased_at)
        return bool(given)

    async def _claim(self) -> float:
        """Begin due runs as far as there is room; return the seconds until the next look, unless woken before."""
        await keep_current(self._parts)
        begun, now = steady(), self._parts.clock()
        async with self._parts.database.read() as tx:
            due = await leases.next_due(tx, self._claimant(now))
        is_due, room = due is not None and due <= now, self._room()
        # First come, first served; and of many at once other replicas are to have their share.
        most = room if self._parts.database.is_sqlite else min(room, _KEPT)
        self._parts.handover.room = 0 if is_due else most
        at_once = _HURRIED_CLAIM if self._parts.database.pace.is_hurried else _CLAIM
        if is_due and room > 0 and await self._lease(begun, min(room, at_once)):
            return 0.0
        if room <= 0:  # a run that holds a target does not wait for undecided ones
            found = is_due and await self._lease(begun, _CLAIM, acting=True)
            return 0.0 if found else _LONGEST_NAP_SECONDS
        if due is None:
            return self._parts.look_again
        return min(max((due - self._parts.clock()).total_seconds(), 0.01), self._parts.look_again)

    def _claimant(self, now: datetime) -> Claimant:
        in_work = {*self._tasks, *self._parts.handover.reserved}
        return Claimant(self._parts.owner, now + self._parts.policy.lease, in_work, self._parts.currency.newer)

    @rerun
    async def _lease(self, begun: float, most: int, *, acting: bool = False) -> int:
        async with self._parts.turn(synced=False) as turn:
            claimed = await leases.claim(turn.tx, self._claimant(turn.now), turn.now, most, acting=acting)
            for lost in claimed.lost:
                await unreadable.follow(turn, lost)
        self._parts.metrics.lease_takeovers.inc(claimed.taken_over)
        for run_id in claimed.unreadable:
            log.error("a run cannot be read and was ended as failed", run=run_id)
        for run_id in claimed.left:
            log.warning("a run cannot be read by this release and is left to a newer replica", run=run_id)
        for run in claimed.runs:
            self._begin(run, begun)
        return len(claimed.runs)

    def _begin(self, run: Run, leased_at: float) -> None:
        self._stages[run.id] = run.state
        cuts = not self._parts.database.is_sqlite
        self._parts.tenures[run.id] = Tenure(self._parts.policy.lease, leased_at, cuts=cuts)
        self._tasks[run.id] = asyncio.create_task(self._work_on(run), name=f"run {run.id}")

    def _room(self) -> int:
        """Return how many more runs may be in work; runs that only watch do not count."""
        return 4 * self._parts.policy.workers - self._busy() - len(self._parts.handover.reserved)

    def _busy(self) -> int:
        return sum(state is not RunState.VERIFYING for state in self._stages.values())

    async def _work_on(self, run: Run) -> None:
        work_in_background()
        try:
            with structlog.contextvars.bound_contextvars(run=run.id, remediation=run.remediation.name):
                await self._advance(run)
        except LeaseLostError:
            log.warning(_LOST, run=run.id)
        except StoreUnavailableError as error:
            log.warning("the store went away; the run is taken up again", run=run.id, error=error.message)
            await asyncio.sleep(_LONGEST_NAP_SECONDS)
        except Exception:  # the worker loop: even a run that cannot be ended must not stop the others
            log.exception("the engine could not end a run; it is taken up again", run=run.id)
            await asyncio.sleep(_LONGEST_NAP_SECONDS)
        finally:
            del self._tasks[run.id]
            del self._stages[run.id]
            del self._parts.tenures[run.id]
            self._fewer.set()
            self._parts.work.set()

    async def _advance(self, run: Run) -> None:
        """Advance a run until it is folded, has ended or is put off, and with that its lease given back."""
        current: Run | None = run
        while current is not None and current.lease_owner is not None:
            if self._parts.draining.is_set():
                return
            try:
                current = await self._stage(current)
            except TransactionLostError:  # the stage begins again, from the ledger's state
                current = await self._held(current or run)
            except (LeaseLostError, StoreUnavailableError):
                raise
            except Exception as error:
                log.exception("the engine failed on a run")
                current = await self._fail(current or run, error)

    async def _held(self, run: Run) -> Run:
        """The run as the ledger has it; raises LeaseLostError where it is not this replica's any more."""
        await asyncio.sleep(random.uniform(0, _AGAIN_SECONDS))  # noqa: S311 - so that two do not meet again
        async with self._parts.database.read() as tx:
            fresh = await runs.get(tx, run.id)
        if fresh is None or (fresh.lease_owner, fresh.lease_epoch) != (run.lease_owner, run.lease_epoch):
            raise LeaseLostError
        return fresh

    async def _stage(self, run: Run) -> Run | None:
        self._stages[run.id] = run.state
        if run.state is RunState.VERIFYING:
            self._fewer.set()
            return await advance(self._parts, run)
        # A run that may act does not wait behind undecided ones.
        async with self._applying if run.state is RunState.RUNNING else self._deciding:
            return await advance(self._parts, run)

    @rerun
    async def _fail(self, run: Run, error: Exception) -> Run | None:
        """End a run on which the engine itself failed, so that it does not fail again and again."""
        entry = Entry(f"unexpected {type(error).__name__}; see the log of this run", Reason.UNEXPECTED)
        async with self._parts.turn() as turn:
            fresh = await runs.get(turn.tx, run.id)
            if fresh is None or (fresh.lease_owner, fresh.lease_epoch) != (run.lease_owner, run.lease_epoch):
                return None
            return await close(turn, fresh, RunState.FAILED, entry)

    async def renew_forever(self) -> None:
        """Renew the leases of runs in work; stop lost runs at once."""
        lease = self._parts.policy.lease
        while True:
            await asyncio.sleep(lease.total_seconds() / 3)
            held, begun = dict(self._tasks), steady()
            if not held:
                continue
            try:
                kept = await self._renew(list(held))
            except StoreUnavailableError as error:
                log.debug("leases could not be renewed", error=error.message)
                continue
            except Exception:  # the loop: the next try may renew them
                log.exception("leases could not be renewed")
                continue
            for run_id, task in held.items():
                if run_id not in kept and not task.done():
                    log.warning(_LOST, run=run_id)
                    task.cancel()
                elif run_id in self._parts.tenures:
                    self._parts.tenures[run_id].prolong(begun)

    @rerun
    async def _renew(self, run_ids: list[str]) -> set[str]:
        async with self._parts.turn() as turn:
            return await leases.renew(turn.tx, self._parts.owner, run_ids, turn.now + self._parts.policy.lease)

    @rerun
    async def _release(self) -> None:
        async with self._parts.database.write() as tx:
            await leases.release_owned(tx, self._parts.owner)
            await announce(tx)

    async def drain(self, grace_seconds: float) -> None:
        """Let calls that are under way finish, then give every lease back; stop runs that only decide or watch."""
        self._parts.draining.set()
        idle = [task for run_id, task in self._tasks.items() if self._stages.get(run_id) is not RunState.RUNNING]
        for task in idle:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=grace_seconds)
        left = list(self._tasks.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*idle, *left, return_exceptions=True)
        with suppress(StoreUnavailableError):
            await self._release()
