"""One answer for many callers that ask at the same time: a storm of decisions does not become a storm of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Shared(Generic[K, V]):
    """Answers by key; one that is on its way, or was asked for within `seconds`, serves all callers."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._asked: dict[K, tuple[float, asyncio.Task[V]]] = {}

    async def get(self, key: K, question: Coroutine[Any, Any, V]) -> V:
        """Return the shared answer; ask `question` only when there is none. All callers get its error."""
        now = asyncio.get_running_loop().time()
        self._asked = {
            known: (since, task)
            for known, (since, task) in self._asked.items()
            if not task.done() or now - since < self._seconds
        }
        if key in self._asked:
            question.close()
        else:
            self._asked[key] = (now, asyncio.create_task(question))
        # A cancelled caller must not take the answer from the others.
        return await asyncio.shield(self._asked[key][1])

    async def close(self) -> None:
        """Ask nothing any more."""
        tasks = [task for _, task in self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
