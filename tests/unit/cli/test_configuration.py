"""What is said about a configuration that is not one, and about a store whose directory is not there yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
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
            'unknown field "namespaces" for the configuration; it belongs under "scope.kubernetes"',
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


KUBECONFIG = {
    "current-context": "bed",
    "clusters": [{"name": "bed", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "me", "user": {"token": "correct-horse-9"}}],
    "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "me"}}],
}


def _kubeconfig(file: Path, **changed: dict[str, str]) -> dict[str, Any]:
    """A configuration that names this kubeconfig, whose cluster or user has these fields besides."""
    cluster, user = changed.get("cluster", {}), changed.get("user", {"token": "correct-horse-9"})
    content = KUBECONFIG | {
        "clusters": [{"name": "bed", "cluster": {"server": "https://127.0.0.1:1"} | cluster}],
        "users": [{"name": "me", "user": user}],
    }
    file.write_text(yaml.safe_dump(content))
    return {"kubernetes": {"default": {"kubeconfig": str(file)}}}


def _checked(folder: Path, connections: dict[str, Any]) -> tuple[int, str]:
    """What `check` says of these connections and a catalog that is well."""
    (folder / "catalog.yaml").write_text("remediations: []\n")
    (folder / "config.yaml").write_text(yaml.safe_dump({"connections": connections}))
    return _said("check", "--config", str(folder / "config.yaml"), str(folder / "catalog.yaml"))


GONE, NO_FILE = "/nowhere/file", "No such file or directory"
SECRET = {"file": GONE}


@pytest.mark.parametrize(
    ("connections", "path"),
    [
        ({"kubernetes": {"default": {"kubeconfig": GONE}}}, "connections.kubernetes.default.kubeconfig"),
        ({"postgres": {"main": {"url": SECRET}}}, "connections.postgres.main.url.file"),
        ({"redis": {"cache": {"url": SECRET}}}, "connections.redis.cache.url.file"),
        (
            {"prometheus": {"default": {"url": "http://127.0.0.1", "bearer_token": SECRET}}},
            "connections.prometheus.default.bearer_token.file",
        ),
        (
            {
                "alertmanager": {
                    "default": {"urls": ["http://127.0.0.1"], "basic": {"username": "me", "password": SECRET}}
                }
            },
            "connections.alertmanager.default.basic.password.file",
        ),
        ({"http": {"api.shop": {"headers": {"X-Api-Key": SECRET}}}}, "connections.http.api.shop.headers.X-Api-Key"),
        ({"http": {"api.shop": {"query": {"key": SECRET}}}}, "connections.http.api.shop.query.key.file"),
        ({"notify": {"ops": {"urls": [{"value": "json://127.0.0.1"}, SECRET]}}}, "connections.notify.ops.urls.1.file"),
        ({"secrets": {"api": SECRET}}, "connections.secrets.api.file"),
        (
            {"postgres": {"main": {"url": {"value": f"postgresql://db/shop?sslrootcert={GONE}"}}}},
            "connections.postgres.main.url  sslrootcert of the URL",
        ),
        (
            {"redis": {"cache": {"url": {"value": f"rediss://cache?ssl_ca_certs={GONE}"}}}},
            "connections.redis.cache.url  ssl_ca_certs of the URL",
        ),
    ],
)
def test_check_reads_each_file_that_a_connection_names(tmp_path: Path, connections: dict[str, Any], path: str) -> None:
    """What is missing is told with the setting that names it, before the first alert needs it."""
    code, said = _checked(tmp_path, connections)
    assert 2 == code, said
    (line, _) = said.splitlines()
    assert line.startswith(f"{tmp_path / 'config.yaml'}:"), said
    assert (True, True, True) == (path in line, GONE in line, NO_FILE in line), said


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"cluster": {"certificate-authority": "ca.crt"}}, "cluster.certificate-authority in "),
        ({"user": {"tokenFile": "token"}}, "user.tokenFile in "),
        ({"user": {"client-certificate": "me.crt", "client-key": "me.key"}}, "user.client-certificate in "),
    ],
)
def test_check_reads_the_files_that_a_kubeconfig_names(
    tmp_path: Path, changed: dict[str, dict[str, str]], field: str
) -> None:
    """By paths that begin at the kubeconfig."""
    (tmp_path / "kube").mkdir()
    code, said = _checked(tmp_path, _kubeconfig(tmp_path / "kube" / "config", **changed))
    assert (2, True) == (code, f"{field}{tmp_path}/kube/config: cannot read {tmp_path}/kube/" in said), said
    for name in ("ca.crt", "token", "me.crt", "me.key"):
        (tmp_path / "kube" / name).write_text("there")
    assert 0 == _checked(tmp_path, _kubeconfig(tmp_path / "kube" / "config", **changed))[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "it is not a mapping"), (b"a: [", "it is no valid YAML at line "), (b"\xff\xfe", "it is not UTF-8 text")],
)
def test_check_tells_a_kubeconfig_that_is_none(tmp_path: Path, content: bytes, told: str) -> None:
    """As the first run that needs it would."""
    (tmp_path / "config").write_bytes(content)
    code, said = _checked(tmp_path, {"kubernetes": {"default": {"kubeconfig": str(tmp_path / "config")}}})
    assert (2, True) == (code, f"{tmp_path}/config cannot be used: {told}" in said), said


def test_check_tells_all_files_at_once_and_no_secret(tmp_path: Path) -> None:
    """An empty file holds no secret, a directory is none, and what is well is not told."""
    (tmp_path / "well").write_text("correct-horse-9")
    (tmp_path / "empty").write_text("\n")
    files = {"well": str(tmp_path / "well"), "empty": str(tmp_path / "empty"), "folder": str(tmp_path)}
    secrets = {name: {"file": file} for name, file in files.items()}
    code, said = _checked(tmp_path, {"secrets": secrets} | _kubeconfig(tmp_path / "kubeconfig"))
    assert 2 == code
    *lines, last = said.splitlines()
    assert 2 == len(lines), said
    assert f"connections.secrets.empty  the secret file {tmp_path}/empty is empty" in said
    assert f"connections.secrets.folder.file  cannot read the secret file {tmp_path}: Is a directory" in said
    assert "remediator: the configuration names files that cannot be used" == last
    assert "correct-horse-9" not in said
