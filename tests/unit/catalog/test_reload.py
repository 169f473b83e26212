"""Reloading: a valid catalog is swapped in as a whole, an invalid one leaves the running one alone."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from app.catalog.catalog import Catalog
from app.catalog.loader import load
from app.catalog.reload import CatalogHolder
from app.domain.errors import ConfigError
from tests.support.aio import run
from tests.unit.catalog.vocabulary import NOW

ENTRY = """
remediations:
  - name: {name}
    summary: Tell someone.
    matchers: [alertname="{name}"]
    mode: observe
    steps: [{{action: notify.send, with: {{channel: oncall, title: "{name}", body: "{name}"}}}}]
"""

Reloads = list[tuple[bool, str, ConfigError | None]]


def _write(file: Path, name: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(ENTRY.format(name=name), encoding="utf-8")


def _names(catalog: Catalog) -> str:
    return " ".join(catalog.remediations)


def _start(path: Path) -> tuple[CatalogHolder, Reloads]:
    reloads: Reloads = []

    def on_reload(ok: bool, catalog: Catalog, error: ConfigError | None) -> None:
        reloads.append((ok, _names(catalog), error))

    return CatalogHolder([path], load([path], NOW), on_reload), reloads


def test_a_valid_catalog_replaces_the_running_one(tmp_path: Path) -> None:
    """As a whole; whoever holds the old one keeps it unchanged."""
    _write(tmp_path / "a.yaml", "first")
    holder, reloads = _start(tmp_path)
    before = holder.current
    _write(tmp_path / "a.yaml", "second")
    assert run(holder.reload(NOW))
    assert ("first", "second") == (_names(before), _names(holder.current))
    assert [(True, "second", None)] == reloads


@pytest.mark.parametrize("second", [ENTRY.format(name="second"), "remediations: 1\n"])
def test_a_reload_lets_requests_go_first_only_while_it_lasts(tmp_path: Path, second: str) -> None:
    """Threads take short turns and nobody looks for garbage among everything; after it all is as before."""
    _write(tmp_path / "a.yaml", "first")
    holder, _ = _start(tmp_path)
    seen = []

    def look(*_: object) -> None:
        seen.append((sys.getswitchinterval(), gc.get_threshold()))

    before = (sys.getswitchinterval(), gc.get_threshold())
    holder = CatalogHolder([tmp_path], holder.current, look)
    (tmp_path / "a.yaml").write_text(second, encoding="utf-8")
    run(holder.reload(NOW))
    assert seen[0][0] < before[0] / 2
    assert seen[0][1][2] > 1000 * before[1][2]
    assert before == (sys.getswitchinterval(), gc.get_threshold())


def test_an_invalid_catalog_leaves_the_running_one_alone(tmp_path: Path) -> None:
    """The problems are kept until a reload goes well again."""
    _write(tmp_path / "a.yaml", "first")
    holder, reloads = _start(tmp_path)
    before = holder.current
    (tmp_path / "a.yaml").write_text("remediations: 1\n", encoding="utf-8")
    assert not run(holder.reload(NOW))
    assert before is holder.current
    assert holder.last_error is not None
    assert [(False, "first", holder.last_error)] == reloads
    assert ["must be a list, not 1"] == [problem.message for problem in holder.last_error.diagnostics]
    _write(tmp_path / "a.yaml", "second")
    assert run(holder.reload(NOW))
    assert holder.last_error is None


def test_a_change_before_anybody_watched_is_noticed(tmp_path: Path) -> None:
    """The files may change between the first load and the moment the watcher runs."""
    _write(tmp_path / "a.yaml", "first")
    holder, reloads = _start(tmp_path)
    _write(tmp_path / "a.yaml", "second")
    run(_watch_until(holder, lambda: None, lambda: bool(reloads)))
    assert [(True, "second", None)] == reloads


def test_concurrent_reloads_come_one_after_the_other(tmp_path: Path) -> None:
    """A signal, a request and the watcher may ask at the same moment; the last word is the newest content."""
    _write(tmp_path / "a.yaml", "first")
    holder, reloads = _start(tmp_path)

    async def scenario() -> list[bool]:
        _write(tmp_path / "a.yaml", "second")
        return await asyncio.gather(*(holder.reload(NOW) for _ in range(3)))

    assert [True, True, True] == run(scenario())
    assert [(True, "second", None)] * 3 == reloads


def _replace(directory: Path) -> None:
    _write(directory / ".new", "second")
    (directory / ".new").rename(directory / "a.yaml")


def _swap(directory: Path) -> None:
    """As the kubelet updates a mounted ConfigMap: a new directory, then `..data` is renamed over in one step."""
    _write(directory / "..2026_2" / "a.yaml", "second")
    (directory / "..data_tmp").symlink_to("..2026_2")
    (directory / "..data_tmp").rename(directory / "..data")


def _add_below(directory: Path) -> None:
    (directory / "a.yaml").unlink()
    _write(directory / "new" / "deep" / "b.yaml", "second")


def _make_again(directory: Path) -> None:
    directory.rename(directory.parent / "old")
    _write(directory / "a.yaml", "second")


@pytest.mark.parametrize(
    "change",
    [lambda directory: _write(directory / "a.yaml", "second"), _replace, _swap, _add_below, _make_again],
    ids=["written", "replaced", "configmap", "new-directory", "directory-made-again"],
)
def test_a_change_of_the_files_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Written in place, renamed over, swapped behind a link, moved to a new directory, or the directory made anew."""
    directory = tmp_path / "catalog"
    _write(directory / "..2026_1" / "a.yaml", "first")
    (directory / "..data").symlink_to("..2026_1")
    (directory / "a.yaml").symlink_to(Path("..data") / "a.yaml")
    holder, reloads = _start(directory)
    run(_watch_until(holder, lambda: change(directory), lambda: _names(holder.current) == "second"))
    assert (True, "second", None) == reloads[-1]


def test_a_named_file_is_watched_too(tmp_path: Path) -> None:
    """Although the directory around it is not part of the catalog."""
    file = tmp_path / "catalog.yaml"
    _write(file, "first")
    holder, _ = _start(file)
    run(_watch_until(holder, lambda: _write(file, "second"), lambda: _names(holder.current) == "second"))


def test_nothing_is_reloaded_while_nothing_changes(tmp_path: Path) -> None:
    """Other files in the directory, and a file that is only touched by a reader, are no reason."""
    _write(tmp_path / "a.yaml", "first")
    holder, reloads = _start(tmp_path)

    def change() -> None:
        (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
        (tmp_path / "a.yaml").read_bytes()
        _write(tmp_path / ".b", "second")
        (tmp_path / ".b").rename(tmp_path / "b.yaml")

    run(_watch_until(holder, change, lambda: bool(reloads)))
    assert [(True, "first second", None)] == reloads


async def _watch_until(holder: CatalogHolder, change: Callable[[], None], done: Callable[[], bool]) -> None:
    watching = asyncio.create_task(holder.watch(lambda: NOW))
    try:
        async with asyncio.timeout(30):
            await asyncio.sleep(0)  # it has begun; a change is seen against what was loaded, however early it comes
            change()
            while not done():
                await asyncio.sleep(0.02)
                if watching.done():
                    watching.result()
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
