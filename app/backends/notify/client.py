"""Notification channels, for notify.send: each is a list of Apprise URLs.

The URLs hold secrets, and Apprise logs parts of them and of services' answers, so its logger stays silent; messages
name a service by its kind (slack, mailto) only.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from app.backends.notify.backend import NotifyChannel
from app.backends.secrets import SecretSource
from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.reasons import Reason
from app.domain.redaction import redact

if TYPE_CHECKING:
    from apprise import Apprise

_log = logging.getLogger("apprise")
_log.propagate = False
_log.addHandler(logging.NullHandler())


class Notifier:
    """One channel."""

    def __init__(self, channel: NotifyChannel, timeout: timedelta) -> None:
        self._urls = channel.urls
        self._timeout = timeout.total_seconds()

    @property
    def services(self) -> int:
        """How many services the channel delivers to."""
        return len(self._urls)

    async def verify(self) -> None:
        """Read every URL and send nothing; raises PermanentError, or ConfigError, where one cannot be used."""
        for number, source in enumerate(self._urls, start=1):
            await asyncio.to_thread(_service, source, number)  # the first one imports every plugin

    def _services(self) -> list[tuple[str, Apprise]]:
        return [_service(source, number) for number, source in enumerate(self._urls, start=1)]

    async def send(self, title: str, body: str, kind: str) -> int:
        """Deliver to every service of the channel and return how many took it.

        Raises TransientError when none did, PermanentError when some did not: trying again would tell the others twice.
        """
        title, body = redact(title), redact(body)  # an annotation may repeat a target's answer
        services = await asyncio.to_thread(self._services)  # the first one imports some hundred plugins, for a second
        try:
            async with asyncio.timeout(self._timeout):
                results = await asyncio.gather(
                    *(service.async_notify(title=title, body=body, notify_type=kind) for _, service in services)
                )
        except TimeoutError:
            msg = f"the notification was not delivered within {self._timeout:g}s"
            raise OutcomeUnknownError(msg) from None
        failed = [name for (name, _), result in zip(services, results, strict=True) if not result]
        if failed:
            msg = f"{len(failed)} of {len(services)} services did not take the notification: {', '.join(failed)}"
            raise (TransientError(msg) if len(failed) == len(services) else PermanentError(msg))
        return len(services)


def _service(source: SecretSource, number: int) -> tuple[str, Apprise]:
    from apprise import Apprise  # noqa: PLC0415 - some hundred plugins, only where a notification is sent

    url = source.read().strip()
    kind = url.partition("://")[0] if "://" in url else "unreadable"
    service = Apprise()
    if not service.add(url) or not len(service):
        msg = f"URL {number} of the notification channel is not an Apprise URL that can be used"
        raise PermanentError(msg, reason=Reason.CONFIG_INVALID)
    return f"{kind} (URL {number})", service
