"""The configuration file: what is wrong is said, and what is secret is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.domain.errors import ConfigError
from app.settings import load_settings

_SECRET = "Sup3r-S3cret"
_TOKEN = "auth:\n  tokens:\n    - name: ops\n      role: admin\n      value: {}\nmode: observe\n"


@pytest.mark.parametrize(
    "written",
    [
        *(f"{mark}{_SECRET}" for mark in "*&!%@`|>{}[],#?-:\"'"),
        *(f"{mark} {_SECRET}: x" for mark in "*&!%@`|>{}[],?-:\"'"),
        f"!!int {_SECRET}",
        f"!{_SECRET} x",
        f"*{_SECRET} x",
        f"&{_SECRET}",
        f"\t{_SECRET}",
        f"{_SECRET}: {_SECRET}",
        f'"{_SECRET}\\q"',
        f'"{_SECRET}',
        f"{_SECRET}\x00",
        f"{{{_SECRET}}}",
        f"[{_SECRET}]",
        f"{_SECRET}\n  {_SECRET}",
    ],
)
def test_an_error_of_the_file_repeats_no_secret(written: str, tmp_path: Path) -> None:
    """However a secret without quotes breaks YAML, the error says where and nothing of it."""
    file = tmp_path / "config.yaml"
    file.write_text(_TOKEN.format(written), encoding="utf-8")
    try:
        said = repr(load_settings(file, {}))
    except ConfigError as error:
        said = "\n".join([error.message, *map(str, error.diagnostics)])
    assert _SECRET not in said


@pytest.mark.parametrize("mark", "*!%@`")
def test_a_value_that_needs_quotes_is_found_where_it_stands(mark: str, tmp_path: Path) -> None:
    """Line and column, and what to do."""
    file = tmp_path / "config.yaml"
    file.write_text(_TOKEN.format(f"{mark}{_SECRET}"), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {})
    (problem,) = caught.value.diagnostics
    assert (5, 14) == (problem.line, problem.column)
    assert "needs quotes" in problem.message


def test_bytes_that_are_no_text_are_said_so(tmp_path: Path) -> None:
    """Not a traceback."""
    file = tmp_path / "config.yaml"
    file.write_bytes(b"store: \xff\xfe")
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {})
    assert "not UTF-8" in caught.value.diagnostics[0].message
