"""Every catalog that the documentation shows is one that loads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.catalog.loader import load
from app.domain.errors import ConfigError
from tests.unit.catalog.vocabulary import NOW

ROOT = Path(__file__).parents[3]
_BLOCK = re.compile(r"^(?P<indent> *)```yaml\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


def _examples() -> Iterator[tuple[str, str]]:
    for file in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        text = file.read_text(encoding="utf-8")
        for block in _BLOCK.finditer(text):
            example = re.sub(rf"^{block['indent']}", "", block["text"], flags=re.MULTILINE)
            if example.startswith("remediations:"):
                yield f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 2}", example


EXAMPLES = dict(_examples())


@pytest.mark.parametrize("place", EXAMPLES)
def test_an_example_loads_as_it_stands(tmp_path: Path, place: str) -> None:
    """With the real actions and checks; the message names the place in the document."""
    file = tmp_path / "example.yaml"
    file.write_text(EXAMPLES[place], encoding="utf-8")
    try:
        load([file], NOW)
    except ConfigError as error:
        pytest.fail(f"{place}\n" + "\n".join(map(str, error.diagnostics)))


def test_the_reference_has_examples() -> None:
    """A changed layout of the documents must not let them pass unread."""
    assert any(place.startswith("docs/remediations.md:") for place in EXAMPLES)
