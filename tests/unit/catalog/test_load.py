"""Loading files into a catalog: what is found, what is kept, what is warned about."""

from __future__ import annotations

import dataclasses
import time
from datetime import timedelta
from pathlib import Path

import pytest

from app.catalog.loader import load
from app.domain.errors import ConfigError
from app.domain.remediation import Mode
from tests.unit.catalog.vocabulary import NOW, load_here, problems_of

VALID = Path(__file__).parents[2] / "testdata" / "remediations" / "valid"

ONE = """
remediations:
  - name: {name}
    summary: Restart it.
    matchers: [alertname="{name}"]
    mode: observe
    steps: [{{action: http.request, with: {{url: "http://a"}}}}]
"""


def _write(file: Path, name: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(ONE.format(name=name), encoding="utf-8")
    return file


def test_every_field_of_the_language_loads() -> None:
    """The file that uses each field once gives what it says."""
    everything = load_here(VALID / "everything.yaml").remediations["everything"]
    assert (Mode.AUTO, timedelta(hours=2), timedelta(minutes=5)) == (
        everything.mode,
        everything.max_age,
        everything.settle,
    )
    assert [2, 1, 1] == [len(rung.steps) for rung in everything.rungs]
    assert ("3/1h", "7/1d") == tuple(str(rate) for rate in everything.limits.rate)
    assert everything.when == everything.verify == everything.escalate[0].verify
    assert [1, 2.5, True, None] == everything.steps[0].with_["json"]["nested"]


def test_words_and_numbers_mean_what_yaml_1_2_says() -> None:
    """`no`, `on` and `1:30` are texts; numbers, true and null are what they look like."""
    core = load_here(VALID / "core-schema.yml").remediations["core-schema"]
    assert ("no", "1:30") == (core.summary, core.description)
    assert [
        *("no", "Yes", "off", "y", "1:30", "2026-11-20", 15, 31, 17, 1000.0, 0.5),
        *(None, True, False, "true", "1_000", "=", ".inf"),
    ] == core.steps[0].with_["json"]


def test_directories_are_read_in_order_and_hidden_entries_are_not(tmp_path: Path) -> None:
    """Files by name, folders below after them; dot files, a ConfigMap's ..data and other suffixes are left out."""
    _write(tmp_path / "b.yml", "b")
    _write(tmp_path / "..data" / "a.yaml", "a")
    (tmp_path / "a.yaml").symlink_to(Path("..data") / "a.yaml")
    _write(tmp_path / "sub" / "c.yaml", "c")
    _write(tmp_path / ".hidden.yaml", "hidden")
    _write(tmp_path / "notes.txt", "notes")
    catalog = load_here(tmp_path)
    assert ["a", "b", "c"] == list(catalog.remediations)
    assert [str(tmp_path / name) for name in ("a.yaml", "b.yml", "sub/c.yaml")] == list(catalog.files)


def test_a_file_that_is_named_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    """Only the listing of a directory looks at suffixes; the same file twice is read once."""
    file = _write(tmp_path / "catalog.conf", "a")
    assert ["a"] == list(load_here(file, file).remediations)


def test_a_name_used_in_two_files_points_at_both(tmp_path: Path) -> None:
    """The second is where the problem is, and it names the first."""
    first, second = _write(tmp_path / "1.yaml", "same"), _write(tmp_path / "2.yaml", "same")
    assert ['2.yaml:3:11  same.name  "same" is already the name of 1.yaml:3:11'] == problems_of(first, second)


def test_all_files_are_reported_at_once(tmp_path: Path) -> None:
    """The message counts problems and files; nothing of an invalid catalog is used."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("remediations: 1\nversion: 2\n", encoding="utf-8")
    _write(tmp_path / "c.yaml", "c")
    with pytest.raises(ConfigError, match=r"^4 problems in 2 files$") as caught:
        load_here(tmp_path)
    assert sorted(caught.value.diagnostics) == list(caught.value.diagnostics)


def test_a_missing_path_is_a_problem(tmp_path: Path) -> None:
    """A typo in a path must not become an empty catalog."""
    assert ["none:1:1  cannot be read: No such file or directory"] == problems_of(tmp_path / "none")


def test_a_link_to_nothing_is_a_problem(tmp_path: Path) -> None:
    """A file that the directory promises and that cannot be read is not passed over."""
    (tmp_path / "a.yaml").symlink_to("gone.yaml")
    assert [f"{tmp_path.name}/a.yaml:1:1  cannot be read: No such file or directory"] == problems_of(tmp_path)


def test_an_empty_directory_is_an_empty_catalog_with_a_warning(tmp_path: Path) -> None:
    """A fresh installation starts; it says that it has nothing to do."""
    catalog = load_here(tmp_path)
    assert 0 == len(catalog)
    assert [f"{tmp_path}:1:1  no *.yaml or *.yml file in this directory"] == [str(item) for item in catalog.warnings]


@pytest.mark.parametrize(
    ("text", "warning"),
    [("# nothing yet\n", "1:1  the file is empty"), ("remediations: []\n", "1:15  remediations  the list is empty")],
)
def test_a_file_without_remediations_is_a_warning(tmp_path: Path, text: str, warning: str) -> None:
    """A file whose entries are all commented out is no mistake, but worth a word."""
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    assert [f"{file}:{warning}"] == [str(item) for item in load_here(file).warnings]


def test_what_the_author_probably_did_not_mean_is_a_warning(tmp_path: Path) -> None:
    """No mode means observe; what runs by itself should be verified, on every rung; some fields mean nothing alone."""
    file = tmp_path / "a.yaml"
    file.write_text(
        """
remediations:
  - name: shown
    summary: No mode.
    matchers: [alertname="A"]
    steps: [{action: http.request, with: {url: "http://a"}}]
  - name: unverified
    summary: Nobody looks.
    matchers: [alertname="A"]
    mode: auto
    target: {kubernetes: {kind: Pod, namespace: "{{ labels.namespace }}", name: "{{ labels.pod }}"}}
    steps: [{action: http.request, with: {url: "http://a"}}]
    escalate:
      - steps: [{action: kubernetes.rollout_restart}]
  - name: kept
    summary: Nothing is given back.
    matchers: [alertname="A"]
    mode: approve
    revert_after: 5m
    steps: [{action: http.request, with: {url: "http://a"}}]
""",
        encoding="utf-8",
    )
    nothing_verifies = 'kubernetes.rollout_restart runs by itself and nothing verifies it; add "verify"'
    assert [
        f"{file}:3:5  shown  mode is observe, its default: the plan is only shown",
        f"{file}:14:9  unverified.escalate[0]  {nothing_verifies}",
        f'{file}:19:5  kept.revert_after  means nothing without "revert: on_resolved"',
    ] == [str(warning) for warning in load_here(file).warnings]


def test_the_digest_is_that_of_the_remediations(tmp_path: Path) -> None:
    """Comments, files and the time of loading do not change it; a changed remediation does."""
    first = load_here(_write(tmp_path / "1" / "a.yaml", "a"))
    moved = _write(tmp_path / "2" / "b.yaml", "a")
    moved.write_text("# moved\n" + moved.read_text(encoding="utf-8"), encoding="utf-8")
    assert first.digest == load_here(moved).digest
    assert first.digest != load_here(_write(tmp_path / "3" / "a.yaml", "c")).digest
    assert first.digest[:12] == first.short_digest


def test_a_catalog_says_where_its_remediations_stand_and_never_changes(tmp_path: Path) -> None:
    """The line is that of the entry; the value is frozen."""
    file = _write(tmp_path / "a.yaml", "a")
    catalog = load_here(file)
    assert f"{file}:3" == str(catalog.sources["a"])
    assert NOW == catalog.loaded_at
    assert catalog.get("a") is catalog.remediations["a"]
    assert catalog.get("b") is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        catalog.digest = "other"  # type: ignore[misc]


def test_the_shipped_catalog_loads_without_any_configuration() -> None:
    """`serve` starts with it when nothing is configured; there is a file for each system that has rules."""
    catalog = load([Path(__file__).parents[3] / "remediations"], NOW)
    assert {"ai-pipeline", "smartcloudops", "spheroseg", "svg-ai", "svg-ai-4tier"} == {
        Path(source.file).stem for source in catalog.sources.values()
    }
    assert () == catalog.warnings


def test_thousands_of_remediations_load_in_seconds(tmp_path: Path) -> None:
    """The time grows with the number of entries and no faster (the bound is generous: the machine may be busy)."""
    entry = ONE.removeprefix("\nremediations:\n")
    file = tmp_path / "many.yaml"
    names = (f"number-{number}" for number in range(2_000))
    file.write_text("remediations:\n" + "".join(entry.format(name=name) for name in names), encoding="utf-8")
    started = time.perf_counter()
    catalog = load_here(file)
    assert 2_000 == len(catalog)
    assert time.perf_counter() - started < 10
    assert ["number-77"] == [found.name for found in catalog.match({"alertname": "number-77"})]


def test_freezes_that_freeze_nothing_are_warned_of(tmp_path: Path) -> None:
    """For want of a remediation of the name, in whatever file it is, or for being over."""
    _write(tmp_path / "a.yaml", "restart-api")
    file = tmp_path / "freezes.yaml"
    file.write_text(
        "freezes:\n"
        '  - {name: fine, summary: s, weekdays: [sunday], remediations: ["restart-*"]}\n'
        "  - {name: typo, summary: s, weekdays: [sunday], remediations: [restart-apo]}\n"
        '  - {name: past, summary: s, ends: "2020-01-01T00:00:00Z"}\n',
        encoding="utf-8",
    )
    assert [
        f'{file}:3:5  typo  "restart-apo" is the name of no remediation; did you mean "restart-api"?',
        f"{file}:4:5  past  the freeze is over for good; it can be taken out",
    ] == [str(warning) for warning in load_here(tmp_path).warnings]
