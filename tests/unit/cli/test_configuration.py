"""What is said about a configuration that is not one, and about a store whose directory is not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import cli


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would set up the logs of this process."""
    monkeypatch.setattr("app.cli.options.configure", lambda *_: None)


def _said(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, words)
    return done.exit_code, done.stdout + done.stderr


@pytest.mark.parametrize("place", ["new", "new/below"])
def test_migrate_makes_the_directory_of_a_new_store(tmp_path: Path, place: str) -> None:
    """As `serve` does."""
    code, said = _said("migrate", "--data", str(tmp_path / place))
    assert (0, True) == (code, said.startswith("migrated from nothing to ")), said
    code, said = _said("migrate", "--data", str(tmp_path / place))
    assert (0, True) == (code, said.startswith("already at ")), said


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Not the store, which has no say in it."""
    (tmp_path / "file").touch()
    told = f"remediator: cannot make the directory {tmp_path}/file/data: Not a directory\n"
    assert (2, told) == _said("migrate", "--data", str(tmp_path / "file" / "data"))


def test_a_directory_is_no_config_file(tmp_path: Path) -> None:
    """It exists."""
    told = f"remediator: the config file {tmp_path} is a directory; name the file in it\n"
    assert (2, told) == _said("check", "--config", str(tmp_path))


def test_a_catalog_is_no_config_file(tmp_path: Path) -> None:
    """The flag that was meant is named."""
    file = tmp_path / "shop.yaml"
    file.write_text("remediations: []\n")
    code, said = _said("check", "--config", str(file))
    assert (2, True) == (code, "this is a file of the catalog, not the configuration; name it with --catalog" in said)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "namespaces: [shop]",
            'unknown field "namespaces" for the configuration; it belongs under "scope"',
        ),
        ("scope: {channel: ops}", 'scope.channel  unknown field "channel" for "scope"; it belongs beside "scope"'),
        ("late_within: 5m", 'it belongs under "episodes"'),
        ("kubeconfig: /k", 'it belongs under "connections.kubernetes"'),
        ("connections: {tokns: []}", 'did you mean "tokens", which belongs under "auth"?'),
    ],
)
def test_a_setting_at_the_wrong_level_is_told_where_it_belongs(tmp_path: Path, text: str, told: str) -> None:
    """Whatever stands around it."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    code, said = _said("check", "--config", str(file))
    assert (2, True) == (code, told in said), said
