"""Logs: one line per event, JSON unless a person watches; uvicorn and libraries log the same way.

`app.main` configures it once. Stages bind the run's id to the context, so that every line of a run carries it. Values
under names that promise a secret are hidden, and tracebacks never show local variables.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from app.domain.redaction import redact, redact_all

_HIDDEN = "[hidden]"
_SECRET_NAMES = frozenset({"authorization", "token", "password", "secret", "credentials", "api_key", "cookie"})
_QUIET = ("httpx", "httpcore", "urllib3", "apprise", "alembic")  # each call of theirs is a line at info


def configure(level: str, format: str) -> None:  # noqa: A002 - the setting's own name
    """Send all logs to stderr: `format` is json, console, or auto (console on a terminal)."""
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared = _shared()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_last(console=console))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    _set_levels(logging.getLevelName(level.upper()))
    _adopt_libraries()


def _set_levels(level: int) -> None:
    """Let only ours speak at debug, where libraries repeat the URLs that they call, with the tokens in them."""
    logging.getLogger().setLevel(max(level, logging.INFO))
    logging.getLogger("app").setLevel(level)


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        hide_secrets,
    ]


def _last(*, console: bool) -> list[Processor]:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if console:
        plain = structlog.dev.plain_traceback
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        return [remove, escape, lambda *line: redact(render(*line))]
    return [remove, structlog.processors.format_exc_info, redacted, structlog.processors.JSONRenderer()]


def redacted(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Take out the values of secrets, also in lines of libraries; a value without a form in JSON becomes text."""
    return {key: redact_all(_json(value)) for key, value in line.items()}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def _adopt_libraries() -> None:
    """Take the handlers of uvicorn away, so that its lines come through ours; quieten the talkative."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def hide_secrets(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Replace values under a name that promises a secret, at any depth."""
    return {key: _hidden(key, value) for key, value in line.items()}


def _hidden(key: Any, value: Any) -> Any:
    if isinstance(key, str) and key.lower() in _SECRET_NAMES:
        return _HIDDEN
    if isinstance(value, dict):
        return {name: _hidden(name, inner) for name, inner in value.items()}
    return value


def escape(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Spell out control characters: a terminal obeys them, and labels come from outside. JSON escapes by itself."""
    return {key: _escaped(value) if key != "exception" else value for key, value in line.items()}


def _escaped(value: Any) -> Any:
    return repr(value) if isinstance(value, str) and not value.isprintable() else value
