"""notify.send through Apprise to a real HTTP receiver."""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Iterator
from typing import Any

import pytest

from app.backends.connections import Connections
from app.backends.notify.actions.send import Send
from app.domain.errors import ActionError, OutcomeUnknownError, PermanentError, TransientError
from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from tests.support import contexts, web
from tests.support.processes import free_port

ACTION = Send()

# Apprise imports it for Python 3.13, where it is gone, as a probe.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.fixture
def receiver() -> Iterator[web.WebServer]:
    """A server that takes Apprise's JSON notifications."""
    with web.serve() as server:
        yield server


def to_channel(*urls: str, timeout: str = "10s") -> Connections:
    """A configuration whose channel `oncall` has these URLs."""
    channel = {"urls": [{"value": url} for url in urls]}
    return Connections.model_validate({"notify": {"oncall": channel}, "timeout": timeout})


def json_url(receiver: web.WebServer) -> str:
    """The Apprise URL of a receiver, with a login in it."""
    return receiver.url.replace("http://", "json://user:correct-horse@")


def away() -> str:
    """The Apprise URL of a receiver that does not listen."""
    return f"json://user:correct-horse@127.0.0.1:{free_port()}/"


def plan(connections: Connections, **given: str) -> PlannedStep:
    """Plan a message."""
    message: dict[str, Any] = {"channel": "oncall", "title": "Disk *full*", "body": "<b>99%</b>", **given}
    return contexts.plan(connections, ACTION, **message)


def error_of(connections: Connections) -> ActionError:
    """What sending a message raises."""
    step = plan(connections)
    with pytest.raises(ActionError) as caught:
        contexts.apply(connections, ACTION, step)
    return caught.value


def test_delivers_title_body_and_type(receiver: web.WebServer) -> None:
    """The message arrives as written."""
    connections = to_channel(json_url(receiver))
    result = contexts.apply(connections, ACTION, plan(connections, type="failure"))
    message = json.loads(receiver.requests[0].body)
    assert {"delivered": 1} == result
    assert ("Disk *full*", "<b>99%</b>", "failure") == (message["title"], message["message"], message["type"])


def test_planning_sends_nothing(receiver: web.WebServer) -> None:
    """A plan says what would be told to whom and holds no URL."""
    step = plan(to_channel(json_url(receiver)))
    assert ("tell channel oncall: Disk *full*", []) == (step.summary, receiver.requests)
    assert "correct-horse" not in step.model_dump_json()


def test_an_unknown_channel_is_refused() -> None:
    """Planning names the channels that there are."""
    with pytest.raises(PermanentError, match="oncall") as caught:
        plan(to_channel("json://127.0.0.1"), channel="onkall")
    assert Reason.CONFIG_INVALID == caught.value.reason


def test_when_nobody_took_it_it_can_be_sent_again() -> None:
    """The error names the kind of service and nothing of its URL."""
    error = error_of(to_channel(away()))
    assert (TransientError, True) == (type(error), "json" in error.message)
    assert "correct-horse" not in error.message


def test_apprise_logs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Apprise says about URLs and answers reaches no log, whatever the level."""
    # Not caplog: pytest listens to loggers that do not propagate, too.
    records = logging.handlers.BufferingHandler(capacity=10_000)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [records])
    monkeypatch.setattr(root, "level", logging.DEBUG)
    error_of(to_channel(away()))
    assert [] == [record for record in records.buffer if record.name.startswith("apprise")]


def test_when_some_took_it_it_is_not_sent_again(receiver: web.WebServer) -> None:
    """Trying again would tell the others twice."""
    error = error_of(to_channel(json_url(receiver), away()))
    assert (PermanentError, 1) == (type(error), len(receiver.requests))


def test_a_refusing_service_did_not_take_it(receiver: web.WebServer) -> None:
    """An error of the service is a failure of the step."""
    receiver.status = 500
    assert "1 of 1" in error_of(to_channel(json_url(receiver))).message


def test_silence_leaves_the_outcome_unknown(receiver: web.WebServer) -> None:
    """A service that does not answer in time may have taken the message."""
    receiver.answering.clear()
    step = plan(to_channel(json_url(receiver), timeout="300ms"))
    with pytest.raises(OutcomeUnknownError):
        contexts.apply(to_channel(f"{json_url(receiver)}?rto=1", timeout="300ms"), ACTION, step)


@pytest.mark.parametrize("url", ["nosuchkind://correct-horse", "correct-horse", "json://"])
def test_an_unusable_url_is_refused_without_showing_it(url: str) -> None:
    """A mistake in the configuration does not spill the secret."""
    error = error_of(to_channel(url))
    assert (Reason.CONFIG_INVALID, False) == (error.reason, "correct-horse" in error.message)


def test_a_message_repeats_no_secret(receiver: web.WebServer) -> None:
    """An annotation may hold what a target has said."""
    connections = to_channel(json_url(receiver))
    contexts.apply(connections, ACTION, plan(connections, title="no correct-horse", body="it said correct-horse"))
    message = json.loads(receiver.requests[0].body)
    assert ("no [hidden]", "it said [hidden]") == (message["title"], message["message"])
