"""How a message to people sounds: what Apprise calls its type, and services show as a colour or an icon."""

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
    """The tone of the message that a run has ended so; what was called off needs nobody."""
    return _OF_END.get(state, Tone.INFO)
