"""What a preflight finds out about a remediation before it is needed: may we, and can we."""

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
    """One thing that was looked at; the message says what to do about it."""

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
