"""The catalog: all remediations of one load, which are swapped as a whole and never change.

The engine asks it for the matches of an alert; every run keeps the digest of its catalog.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.catalog.files import Snapshot
from app.catalog.index import MatcherIndex
from app.catalog.validation import Entry
from app.domain.errors import Diagnostic
from app.domain.freezes import Freeze
from app.domain.remediation import Remediation

_SHORT = 12


@dataclass(frozen=True, slots=True)
class Source:
    """Where a remediation is written."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Immutable; `remediations` keep the order of files and of entries within them."""

    remediations: Mapping[str, Remediation]
    sources: Mapping[str, Source]
    files: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]
    digest: str
    loaded_at: datetime
    freezes: tuple[Freeze, ...]
    seen: Snapshot = field(repr=False)  # the state of the files just before they were read
    _index: MatcherIndex[Remediation] = field(repr=False)

    @classmethod
    def of(
        cls,
        entries: Sequence[Entry],
        freezes: Sequence[Freeze] = (),
        *,
        seen: Snapshot,
        warnings: Sequence[Diagnostic],
        loaded_at: datetime,
    ) -> Catalog:
        """A catalog of valid entries whose names differ."""
        return cls(
            remediations={entry.remediation.name: entry.remediation for entry in entries},
            sources={entry.remediation.name: Source(entry.file, entry.at[0]) for entry in entries},
            files=tuple(file for file, *_ in seen),
            warnings=tuple(sorted(warnings)),
            digest=_digest(entries, freezes),
            freezes=tuple(freezes),
            loaded_at=loaded_at,
            seen=seen,
            _index=MatcherIndex([(entry.matchers, entry.remediation) for entry in entries]),
        )

    @property
    def short_digest(self) -> str:
        """Enough of the digest for a person to tell two catalogs apart."""
        return self.digest[:_SHORT]

    def match(self, labels: Mapping[str, str]) -> tuple[Remediation, ...]:
        """The remediations for an alert with these labels, in catalog order."""
        return self._index.match(labels)

    def get(self, name: str) -> Remediation | None:
        """A remediation by its name."""
        return self.remediations.get(name)

    def frozen(self, remediation: Remediation, now: datetime) -> tuple[str, datetime] | None:
        """The freeze (name and summary) that keeps a remediation from acting now for longest, and when it ends."""
        holding = [one for one in self.freezes if one.concerns(remediation.name) and one.holds(now)]
        ends = [(one.end(now), f"{one.name}: {one.summary}") for one in holding]
        return max(ends)[::-1] if ends else None

    def __len__(self) -> int:
        return len(self.remediations)


def _digest(entries: Sequence[Entry], freezes: Sequence[Freeze]) -> str:
    """Digest the remediations and freezes in their order; other files or comments around them do not change it."""
    content = [entry.remediation.to_json() for entry in entries]
    content += [freeze.model_dump(mode="json") for freeze in freezes]
    # One by one: the encoder lets no other thread run before it is done.
    each = (json.dumps(one, sort_keys=True, separators=(",", ":"), ensure_ascii=False) for one in content)
    return hashlib.sha256(f"[{','.join(each)}]".encode("utf-8", "surrogatepass")).hexdigest()
