"""Child processes of the test bed explain themselves when they fail, and never outlive their test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import binaries
from tests.support.processes import BedError, Process, wait_until
from tools.install import MODULES


def test_a_process_that_dies_shows_its_log(tmp_path: Path) -> None:
    """Whoever reads the failure sees the reason and not just a time-out."""
    process = Process([sys.executable, "-c", "raise SystemExit('no such setting')"], tmp_path / "log")
    with pytest.raises(BedError, match="ended with status 1; its log ends:\nno such setting"):
        process.wait_ready(lambda: False)
    process.stop()


def test_a_process_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    """SIGKILL follows when SIGTERM changes nothing."""
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = Process([sys.executable, "-c", deaf], tmp_path / "log")
    process.wait_ready(lambda: "deaf" in process.tail())
    process.stop(timeout=0.1)
    assert process.returncode == -9


def test_children_of_a_process_end_with_it(tmp_path: Path) -> None:
    """The whole group goes, so that nothing keeps a port."""
    process = Process(["/bin/sh", "-c", "sleep 99 & echo $!; wait"], tmp_path / "log")
    process.wait_ready(lambda: process.tail().strip().isdigit())
    child = int(process.tail())
    process.stop()
    wait_until(lambda: not _runs(child), 5, "the child to be gone")


def test_waiting_says_what_was_waited_for() -> None:
    """A time-out names the condition and the last answer."""
    with pytest.raises(TimeoutError, match="waited 0 s for spring; last seen: None"):
        wait_until(lambda: None, 0, "spring")


def test_a_missing_program_skips_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line says what is missing and how to get it."""
    monkeypatch.setenv("REMEDIATOR_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("REQUIRE_REAL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="kwok is not installed"):
        binaries.find("kwok")


def test_a_missing_program_fails_where_real_parts_are_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CI must not pass because it tested nothing."""
    monkeypatch.setenv("REMEDIATOR_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("REQUIRE_REAL", "1")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_REAL=1, but kwok is not installed"):
        binaries.find("kwok")


def test_a_variable_comes_before_everything_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who names a program gets that one."""
    program = tmp_path / "kwok"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert binaries.find("kwok") == program


def test_installing_again_takes_no_time() -> None:
    """With everything there, the installer says nothing and is done at once."""
    for name in ("redis-server", "kube-apiserver"):
        binaries.find(name)
    began = time.monotonic()
    script = MODULES.parent / "install.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert (done.stdout, time.monotonic() - began < 5) == ("", True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
