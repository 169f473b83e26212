"""The findings of a preflight: may a remediation run, and can it, before an alert needs it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum

from app.domain.model import Value


class Result(StrEnum):
    """Whether something could be done now."""

    OK = "ok"
    UNKNOWN = "unknown"  # it cannot be told beforehand
    CANNOT = "cannot"


class Finding(Value):
    """One question of a preflight; the message names the remedy."""

    subject: str
    result: Result
    message: str = ""


class Report(Value):
    """All findings about one remediation."""

    remediation: str
    result: Result
    at: datetime
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, remediation: str, at: datetime, findings: Collection[Finding]) -> Report:
        """The worst of the findings is the result; where nothing could be asked nothing is known."""
        found = {finding.result for finding in findings}
        worst = next((one for one in reversed(Result) if one in found), Result.UNKNOWN)
        return cls(remediation=remediation, result=worst, at=at, findings=tuple(findings))
