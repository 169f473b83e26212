"""Runs that take-in records for the worker beside it: leased from the beginning, so that no search is needed.

Only as many as the worker has room for, and only while nothing older waits for it; the rest is claimed from the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from app.store.ledger.runs import Run


class Handover:
    """From the take-in of one replica to its worker."""

    def __init__(self) -> None:
        self.room = 0  # as the worker last said
        self.reserved: set[str] = set()  # runs that are recorded now or were: not to be claimed as well
        self._recorded: list[tuple[Run, float]] = []

    @contextmanager
    def leasing(self, owner: str) -> Iterator[Callable[[Sequence[Run], float], list[Run]]]:
        """Go around a transaction that records runs: gives a function that leases as many of them as there is room for.

        They are the worker's when this ends well, and that is when the transaction is committed.
        """
        mine: list[tuple[Run, float]] = []

        def lease(new: Sequence[Run], begun: float) -> list[Run]:
            count = max(0, min(self.room, len(new)))
            leased = [replace(run, lease_owner=owner, lease_epoch=1) for run in new[:count]]
            mine.extend((run, begun) for run in leased)
            self.room -= count
            self.reserved |= {run.id for run in leased}
            return [*leased, *new[count:]]

        try:
            yield lease
        except BaseException:
            self.reserved -= {run.id for run, _ in mine}
            raise
        self._recorded += mine

    def take(self) -> list[tuple[Run, float]]:
        """Return the runs recorded since then, each with the begin of its lease by the steady clock."""
        taken, self._recorded = self._recorded, []
        self.reserved -= {run.id for run, _ in taken}
        return taken
