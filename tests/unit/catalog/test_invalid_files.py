"""Every way in which a file can be wrong, with everything that its author is then told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.catalog.vocabulary import problems_of

# <topic>.yaml is the file and <topic>.txt what is said about it.
INVALID = Path(__file__).parents[2] / "testdata" / "remediations" / "invalid"


@pytest.mark.parametrize("topic", sorted(file.stem for file in INVALID.glob("*.yaml")))
def test_every_problem_of_an_invalid_file_is_told_with_its_position(topic: str) -> None:
    """Each file of the folder is refused with exactly these lines, sorted by position."""
    expected = (INVALID / f"{topic}.txt").read_text(encoding="utf-8").splitlines()
    assert expected
    assert expected == problems_of(INVALID / f"{topic}.yaml")
