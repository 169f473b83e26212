"""What the core asks of a system that holds alerts: which fire, in what state, and since when it runs.

A backend that can answer plays the role `AlertBackend`. Several of its instances are asked as one.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from app.backends.base import Backend
from app.domain.alerts import AnyPairs, Fingerprint, Time

if TYPE_CHECKING:
    from app.backends.instances import Clients

# What Go's regexp.QuoteMeta puts a backslash before; Alertmanager quotes receivers so when it notifies.
_QUOTED = re.compile(r"\\([\\.+*?()|\[\]{}^$])")


class Answer(BaseModel):
    """A part of an answer; releases add fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Status(Answer):
    """Whether an alert is active, and its silences and inhibiting alerts."""

    state: str
    silenced_by: tuple[str, ...] = Field(default=(), alias="silencedBy")
    inhibited_by: tuple[str, ...] = Field(default=(), alias="inhibitedBy")
    muted_by: tuple[str, ...] | None = Field(default=None, alias="mutedBy")


class HeldAlert(Answer):
    """One alert that has not resolved, of any size: one that is too large must not hide the others."""

    fingerprint: Fingerprint
    labels: AnyPairs
    annotations: AnyPairs = Field(default_factory=dict)
    starts_at: Time = Field(alias="startsAt")
    updated_at: Time | None = Field(default=None, alias="updatedAt")  # when Prometheus sent it the last time
    generator_url: str = Field(default="", alias="generatorURL")
    status: Status

    def has_fired_for(self, time: timedelta) -> bool:
        """Whether it had been firing for so long when Prometheus sent it the last time."""
        return self.updated_at is not None and self.updated_at - self.starts_at >= time


class Receiver(Answer):
    """Whom a group is told to."""

    name: str


class Group(Answer):
    """The alerts that one receiver is told of together."""

    receiver: Receiver
    alerts: tuple[HeldAlert, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the cluster, by its own clock."""

    started_at: datetime
    now: datetime | None  # None where a proxy takes the header away


@dataclass(frozen=True, slots=True)
class Answers:
    """The alerts of each member that answered; `missing` has the error of each other member."""

    groups: tuple[tuple[Group, ...], ...]
    missing: tuple[str, ...]
    is_silent: bool = False  # of several clusters of members, one did not answer at all


class AlertSource(Protocol):
    """The members of one cluster, or of several."""

    @property
    def receivers(self) -> tuple[str, ...]:
        """Return the receivers that lead here, as configured; none: the receivers of notifications."""

    def of_name(self, alertname: str) -> Awaitable[Answers]:
        """The groups with alerts of this name, of all receivers."""

    def routed_to(self, receivers: Collection[str]) -> Awaitable[Answers]:
        """Return the groups of the given receivers, by their plain names."""

    def fingerprints(self) -> Awaitable[frozenset[str]]:
        """Every alert that any member holds; raises unless all members answer."""

    def members(self) -> Awaitable[tuple[Member, ...]]:
        """Return when each member started, and its present time; raises unless all members answer."""


class AlertBackend(Backend[Any], ABC):
    """A backend whose instances hold the alerts that notifications are about."""

    @abstractmethod
    async def source(self, clients: Clients) -> AlertSource | None:
        """All of its instances; None where none is configured."""


class Sources:
    """Several sources as one: an alert of any of them fires, and one that was not asked may still hold it."""

    def __init__(self, sources: Sequence[AlertSource]) -> None:
        self._sources = sources

    @property
    def receivers(self) -> tuple[str, ...]:
        """None, so that notifications are gone by, unless each source names its own."""
        named = [one.receivers for one in self._sources]
        return tuple(dict.fromkeys(chain.from_iterable(named))) if all(named) else ()

    async def of_name(self, alertname: str) -> Answers:
        """Of all sources."""
        return _together(await asyncio.gather(*(one.of_name(alertname) for one in self._sources)))

    async def routed_to(self, receivers: Collection[str]) -> Answers:
        """Of all sources."""
        return _together(await asyncio.gather(*(one.routed_to(receivers) for one in self._sources)))

    async def fingerprints(self) -> frozenset[str]:
        """Of all sources."""
        return frozenset().union(*await asyncio.gather(*(one.fingerprints() for one in self._sources)))

    async def members(self) -> tuple[Member, ...]:
        """Of all sources."""
        return tuple(chain.from_iterable(await asyncio.gather(*(one.members() for one in self._sources))))


def _together(answers: Sequence[Answers]) -> Answers:
    return Answers(
        groups=tuple(chain.from_iterable(one.groups for one in answers)),
        missing=tuple(chain.from_iterable(one.missing for one in answers)),
        is_silent=any(not one.groups for one in answers),
    )


def plain_receiver(notified: str) -> str:
    """A receiver's name as it is configured, from the name in a notification, where it is quoted for a pattern."""
    return _QUOTED.sub(r"\1", notified)
