"""Logs: one pipeline for ours and the libraries', with the run on each line and no secret on any."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest
import structlog
from pydantic import SecretStr

from app.backends.notify.backend import NotifyChannel
from app.backends.notify.client import Notifier
from app.backends.secrets import SecretSource
from app.telemetry.logs import configure
from tests.support import web
from tests.support.aio import run


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield
    root.handlers, root.level = before
    logging.getLogger("app").setLevel(logging.NOTSET)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What was logged."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_with_time_level_and_context(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is bound to the context is on it."""
    configure("info", "json")
    with structlog.contextvars.bound_contextvars(run="018f"):
        structlog.get_logger().info("step ended", state="succeeded")
    (line,) = lines(capsys)
    assert ("step ended", "info", "018f", "succeeded") == (line["event"], line["level"], line["run"], line["state"])
    assert str(line["time"]).endswith("Z")


def test_libraries_log_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    """Also what uvicorn says, once."""
    configure("info", "json")
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    logging.getLogger("httpx").info("HTTP Request: GET http://user:pw@x/")
    assert [("Started server process [7]", "uvicorn.error")] == [(one["event"], one["logger"]) for one in lines(capsys)]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise probes for it
def test_at_debug_only_ours_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A library repeats the whole URL that it calls, such as that of a channel, in which the token stands."""
    with web.serve() as service:
        port = service.url.rpartition(":")[2]
        url = SecretSource(value=SecretStr(f"json://127.0.0.1:{port}/hook/hunter2"))
        notifier = Notifier(NotifyChannel(urls=(url,)), timedelta(seconds=10))
        configure("debug", "json")
        structlog.stdlib.get_logger("app.engine").debug("ours")
        assert 1 == run(notifier.send("title", "body", "info"))
    assert ["/hook/hunter2"] == [asked.path for asked in service.requests]
    assert ["ours"] == [one["event"] for one in lines(capsys)]


def test_levels_below_the_chosen_one_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours and the libraries'."""
    configure("warning", "json")
    structlog.get_logger().info("no")
    logging.getLogger("uvicorn").info("no")
    structlog.get_logger().warning("yes")
    assert ["yes"] == [one["event"] for one in lines(capsys)]


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_are_hidden(capsys: pytest.CaptureFixture[str], form: str) -> None:
    """By the name that they stand under, and never as a local variable of a traceback."""
    configure("info", form)
    hidden = "hunter2"
    try:
        int(f"{hidden!s:.0s}broken")
    except ValueError:
        structlog.get_logger().exception("failed", token=hidden, headers={"Authorization": hidden})
    text = capsys.readouterr().err
    assert "invalid literal" in text
    assert "hunter2" not in text


def test_a_person_gets_text(capsys: pytest.CaptureFixture[str]) -> None:
    """When the format is console."""
    configure("info", "console")
    structlog.get_logger().info("serving", listen="127.0.0.1:8080")
    assert "serving" in capsys.readouterr().err


def test_a_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a label holds."""
    configure("info", "console")
    structlog.get_logger().info("refused", group="\x1b[2J\nforged line")
    text = capsys.readouterr().err
    assert "\x1b[2J" not in text
    assert 1 == len(text.splitlines())
