"""Runs that take-in leases for the worker beside it: at most what there is room for, and nothing that was not kept."""

from __future__ import annotations

import pytest

from app.engine.handover import Handover
from app.engine.stages.intake import pending_run
from app.store.ledger.runs import Run
from tests.support.alerts import NOW
from tests.support.engine import read
from tests.support.ledger import new_episode


def _runs(count: int) -> list[Run]:
    return [pending_run(read(), "0", new_episode(f"{number:x}"), NOW) for number in range(count)]


def test_no_more_are_leased_than_there_is_room_for() -> None:
    """The rest is claimed from the ledger, later and by whoever has room."""
    handover = Handover()
    handover.room = 2
    with handover.leasing("me") as lease:
        recorded = lease(_runs(3), 0.0)
    assert ["me", "me", None] == [run.lease_owner for run in recorded]
    assert [run.id for run in recorded[:2]] == [run.id for run, _ in handover.take()]
    assert (0, []) == (handover.room, handover.take())


def test_what_was_not_committed_is_nobodys() -> None:
    """Its ids are free again, and the worker hears nothing of it."""
    handover = Handover()
    handover.room = 5

    def fails() -> None:
        with handover.leasing("me") as lease:
            lease(_runs(2), 0.0)
            raise ValueError("disk")

    with pytest.raises(ValueError, match="disk"):
        fails()
    assert (set(), []) == (handover.reserved, handover.take())


def test_a_leased_run_is_not_claimed_as_well() -> None:
    """Until the worker has begun it, its id is kept from the worker's own look into the ledger."""
    handover = Handover()
    handover.room = 1
    with handover.leasing("me") as lease:
        (run,) = lease(_runs(1), 0.0)
        assert {run.id} == handover.reserved
    assert {run.id} == handover.reserved
    handover.take()
    assert set() == handover.reserved
