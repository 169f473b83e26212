"""The benchmark in small: it runs to its end and writes what it says. How fast that was is nobody's concern here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CASES = ("acknowledgement", "take-in", "latency", "throughput", "storm", "catalog", "audit", "start")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_it_runs_in_small(tmp_path: Path) -> None:
    """Each case has its lines, and what grows its plot."""
    words = [sys.executable, "-m", "tools.bench", "--small", "--out", str(tmp_path)]
    words += [word for case in CASES for word in ("--only", case)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert set(CASES) == {one["case"] for one in results}
    assert all(one["value"] > 0 for one in results if one["unit"] != "MiB")
    assert "| ratio |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "microseconds-an-alert-by-remediations.svg").stat().st_size > 1000
