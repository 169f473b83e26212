"""Finds the real programs that tests need; a test whose program is missing skips, or fails under REQUIRE_REAL=1.

Called by the modules of this package that start servers. Where the programs come from is for tools/install.py to know.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tools.install import PROGRAMS, locate


def find(name: str) -> Path:
    """The path of a program that `tools.install` knows by this name."""
    path = locate(name)
    if path is None:
        unavailable(f"{name} is not installed ({PROGRAMS[name].origin}); python3 tools/install.py installs it")
    return path


def unavailable(reason: str) -> NoReturn:
    """Skip the test for one reason; a failure where every real part is required."""
    if os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(f"REQUIRE_REAL=1, but {reason}", pytrace=False)
    pytest.skip(reason)
