"""Keeps the running catalog current: swaps it whole when its files change, keeps it when the new one is wrong.

The composition root makes one holder; the engine reads `current`, the API and SIGHUP call `reload`, and `watch` runs
beside the server. The meaning of an invalid catalog at the start is decided elsewhere: by `load`'s ConfigError.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from app.catalog.catalog import Catalog
from app.catalog.files import snapshot
from app.catalog.loader import load
from app.domain.errors import ConfigError, Diagnostic

# Files are compared, and no events waited for: network file systems send none, and a watch costs many wake-ups more.
_LOOK_SECONDS = 2.0
_SETTLE_SECONDS = 0.4
# After how long a thread lets the next one run while a catalog is loaded; a fiftieth of the usual time.
_SWITCH_SECONDS = 0.0001
_NEVER = 1_000_000

# Whether the load went well, the catalog that is current now, and why it did not go well.
OnReload = Callable[[bool, Catalog, ConfigError | None], None]
Review = Callable[[Catalog], Sequence[Diagnostic]]


def _own_warnings(catalog: Catalog) -> Sequence[Diagnostic]:
    """Read the catalog from its files, without a configuration to compare it with."""
    return catalog.warnings


@contextmanager
def _others_first() -> Iterator[None]:
    """Keep work in threads from holding up requests meanwhile."""
    interval, (young, middle, old) = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(_SWITCH_SECONDS)
    # A look for garbage among all objects stops every thread, and comes again and again while a catalog is made.
    gc.set_threshold(young, middle, _NEVER)
    try:
        yield
    finally:
        # The catalog is no garbage before the next one is there, and then it goes without being looked for.
        gc.freeze()
        gc.set_threshold(young, middle, old)
        sys.setswitchinterval(interval)


class CatalogHolder:
    """The current catalog and the outcome of the last reload."""

    def __init__(
        self, paths: Sequence[Path], catalog: Catalog, on_reload: OnReload, review: Review = _own_warnings
    ) -> None:
        self.current = catalog
        self._review = review
        self.warnings = review(catalog)  # the warnings of the current catalog
        self.last_error: ConfigError | None = None
        self._paths = tuple(paths)
        self._seen = catalog.seen  # the state of the files at the last reading
        self._on_reload = on_reload
        self._reloading = asyncio.Lock()

    async def reload(self, now: datetime) -> bool:
        """Read the files again and say whether the result is current; else `last_error` says why not."""
        async with self._reloading:
            # Before the load, so that a change during the load is found afterwards.
            self._seen = await asyncio.to_thread(snapshot, self._paths)
            with _others_first():
                catalog, error = self.current, None
                try:
                    catalog = await asyncio.to_thread(load, self._paths, now)
                except ConfigError as refusal:
                    error = refusal
                if error is None:
                    self.warnings = await asyncio.to_thread(self._review, catalog)
                await asyncio.to_thread(self._on_reload, error is None, catalog, error)
            self.current, self.last_error = catalog, error
            return self.last_error is None

    async def watch(self, clock: Callable[[], datetime]) -> None:
        """Reload after each change, until cancelled."""
        while True:
            await self._reload_if_changed(clock)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _reload_if_changed(self, clock: Callable[[], datetime]) -> None:
        now_seen = await asyncio.to_thread(snapshot, self._paths)
        if now_seen != self._seen:
            await asyncio.sleep(_SETTLE_SECONDS)  # an editor may write several files, one after the other
            await self.reload(clock())
