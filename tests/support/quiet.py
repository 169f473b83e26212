"""Plain log lines for tests that run the engine in their own process: pytest shows them when a test fails."""

from __future__ import annotations

import structlog


def configure() -> None:
    """Log as the service does, to whatever stdout is at the moment of each line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=False,
    )
