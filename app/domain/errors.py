"""The error tree that every layer speaks.

Clients translate vendor errors into these at their edge; the API turns them into problems, the engine into outcomes.
The docstring of a class is its default message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.reasons import Reason
from app.domain.redaction import redact


class AppError(Exception):
    """Something went wrong."""

    reason: Reason = Reason.UNEXPECTED

    def __init__(self, message: str | None = None, *, reason: Reason | None = None) -> None:
        self.message = redact(message or (type(self).__doc__ or "").strip())
        if reason is not None:
            self.reason = reason
        super().__init__(self.message)


@dataclass(frozen=True, order=True, slots=True)
class Diagnostic:
    """One problem in a file: line and column (from 1), YAML path, the fault, and the remedy."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        path = f"{self.path}  " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}  {path}{self.message}"


class ConfigError(AppError):
    """The configuration cannot be used."""

    reason = Reason.CONFIG_INVALID

    def __init__(self, message: str | None = None, diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(message)
        self.diagnostics = tuple(sorted(diagnostics))


class NotificationError(AppError):
    """The notification cannot be understood."""

    def __init__(self, message: str, *, status: int = 422, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class StoreUnavailableError(AppError):
    """The store cannot take the notification now; it will be taken when it is sent again."""


class CommitUnknownError(StoreUnavailableError):
    """The store was told to commit and its answer was lost: it is not known whether anything was recorded."""


class TransactionLostError(StoreUnavailableError):
    """The database gave this transaction up for another one; nothing was changed, and it can be run again at once."""


class NotFoundError(AppError):
    """There is no such thing."""


class ConflictError(AppError):
    """That is not possible in the present state."""


class UnreadableError(ConflictError):
    """Another release recorded this run, and this one cannot read it; ask a replica of that release."""


class LeaseLostError(AppError):
    """Another replica works on this now."""


class CheckError(AppError):
    """The check could not observe its subject, which is not the same as observing that it does not hold."""

    reason = Reason.CHECK_UNOBSERVABLE


class ActionError(AppError):
    """The action failed."""

    reason = Reason.ACTION_FAILED


class TransientError(ActionError):
    """The action failed without effect, in a way that may pass; it may be tried again."""

    reason = Reason.TARGET_UNREACHABLE

    def __init__(self, message: str | None = None, *, reason: Reason | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after


class PermanentError(ActionError):
    """The action failed and trying again would not help."""


class OutcomeUnknownError(ActionError):
    """The request was sent and no answer came, so it may have taken effect or not."""

    reason = Reason.OUTCOME_UNKNOWN
