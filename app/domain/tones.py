"""The tone of a message to people: Apprise calls it the type, and services show a colour or an icon."""

from __future__ import annotations

from enum import StrEnum

from app.domain.states import RunState


class Tone(StrEnum):
    """The types of Apprise."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"  # a person is needed, or may be
    FAILURE = "failure"


_OF_END = {
    RunState.SUCCEEDED: Tone.SUCCESS,
    RunState.FAILED: Tone.FAILURE,
    RunState.INTERRUPTED: Tone.FAILURE,
    RunState.EXPIRED: Tone.WARNING,
    RunState.DENIED: Tone.WARNING,
}


def of_end(state: RunState) -> Tone:
    """Return the tone of the message about such an end; a run that was called off needs no person."""
    return _OF_END.get(state, Tone.INFO)
