"""Alertmanager's API v2 (0.25 and later): its alerts, their states, and the time since which it runs.

All members of a cluster are asked at once, since each answers for itself only. Asks only; an answer that is not
understood is an error, never an empty list. `mutedBy` exists from 0.28 on, and only in the list of groups.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Collection, Mapping
from typing import TypeVar
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from app.backends.alertmanager.backend import AlertmanagerConnection
from app.backends.shared import Shared
from app.backends.sources import Answer, Answers, Group, Member
from app.backends.web import HttpClient, HttpRequest, HttpResponse, describe, refusal
from app.domain.alerts import Fingerprint, Time
from app.domain.errors import AppError, OutcomeUnknownError, TransientError

T = TypeVar("T")
_ANSWER_LIMIT = 64 * 1024 * 1024
_SHARED_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0  # a decision waits for it; a look-up waits as long as any other call
# Characters that Go's regexp.QuoteMeta escapes; Alertmanager quotes receivers so when it notifies.
_META = re.compile(r"([\\.+*?()|\[\]{}^$])")


class _Fingerprinted(Answer):
    fingerprint: Fingerprint


class _ServerStatus(Answer):
    uptime: Time  # when it started, in spite of the name


_GROUPS = TypeAdapter(tuple[Group, ...])
_ALERTS = TypeAdapter(tuple[_Fingerprinted, ...])
_STATUS = TypeAdapter(_ServerStatus)


class AlertmanagerClient:
    """All members of the configured cluster."""

    def __init__(self, http: HttpClient, connection: AlertmanagerConnection) -> None:
        self._http = http
        self._connection = connection
        self._shared: Shared[str, Answers] = Shared(_SHARED_SECONDS)

    @property
    def receivers(self) -> tuple[str, ...]:
        """The receivers that lead to the remediator, as far as they are configured."""
        return self._connection.receivers

    async def close(self) -> None:
        """Ask nothing any more."""
        await self._shared.close()

    async def of_name(self, alertname: str) -> Answers:
        """The groups with alerts of this name, of all receivers; decisions of the same second share the answer."""
        return await self._shared.get(alertname, self._of_name(alertname))

    async def _of_name(self, alertname: str) -> Answers:
        query = [("filter", f"alertname={_quoted(alertname)}")]
        return await self._groups(query, _PATIENCE_SECONDS)

    async def routed_to(self, receivers: Collection[str]) -> Answers:
        """Return the groups of the given receivers, by their plain names."""
        pattern = "|".join(_META.sub(r"\\\1", name) for name in sorted(receivers))
        return await self._groups([("receiver", pattern)], None)

    async def fingerprints(self) -> frozenset[str]:
        """Return every alert of any member, in any state and on any route; raises unless all members answer."""
        found = await asyncio.gather(*(self._get(url, "alerts", (), _ALERTS) for url in self._connection.urls))
        return frozenset(alert.fingerprint for alerts in found for alert in alerts)

    async def members(self) -> tuple[Member, ...]:
        """Return when each member started, and its present time; raises unless all members answer."""
        found = await asyncio.gather(*(self._ask(url, "status", (), _STATUS) for url in self._connection.urls))
        return tuple(Member(status.uptime, response.date) for status, response in found)

    async def _groups(self, query: Collection[tuple[str, str]], patience: float | None) -> Answers:
        async def ask(url: str) -> tuple[Group, ...] | str:
            try:
                async with asyncio.timeout(patience):
                    return await self._get(url, "alerts/groups", query, _GROUPS)
            except TimeoutError:
                return f"{describe(url)} did not answer within {patience:g} s"
            except AppError as error:
                return error.message

        answers = await asyncio.gather(*(ask(url) for url in self._connection.urls))
        return Answers(
            groups=tuple(answer for answer in answers if not isinstance(answer, str)),
            missing=tuple(answer for answer in answers if isinstance(answer, str)),
        )

    async def _get(self, url: str, path: str, query: Collection[tuple[str, str]], form: TypeAdapter[T]) -> T:
        answer, _ = await self._ask(url, path, query, form)
        return answer

    async def _ask(
        self, url: str, path: str, query: Collection[tuple[str, str]], form: TypeAdapter[T]
    ) -> tuple[T, HttpResponse]:
        where = f"{url.rstrip('/')}/api/v2/{path}"
        parameters = f"?{urlencode(list(query))}" if query else ""
        secret, own = self._connection.bearer_token, self._connection.headers
        request = HttpRequest("GET", where + parameters, self._headers(), secret=secret, own=own)
        try:
            response = await self._http.send(request, _ANSWER_LIMIT)
        except OutcomeUnknownError as error:
            raise TransientError(error.message) from error
        if not response.is_success:
            raise refusal(describe(where), response)
        try:
            return form.validate_json(response.body), response
        except ValidationError as error:
            msg = f"{describe(where)} answered with something that Alertmanager's API does not send"
            raise TransientError(msg) from error

    def _headers(self) -> Mapping[str, str]:
        basic = self._connection.basic
        if basic is None:
            return {}
        pair = f"{basic.username}:{basic.password.read()}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
