"""The shapes of the answers: a public interface, so that a field is added here, never renamed or taken away.

Times are RFC 3339 in UTC. Records of an earlier release are shown as they are: plans and specifications are free JSON
here, although the engine has types for them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.domain.model import JsonObject
from app.domain.remediation import Mode, Purpose
from app.domain.states import RunState


class Answer(BaseModel):
    """Read from rows of the store and from values of the domain."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class RunSummary(Answer):
    """A run as a list shows it."""

    id: str
    remediation: str
    state: RunState
    reason: str | None = Field(description="Why it is in this state; docs/troubleshooting.md explains each.")
    message: str
    effective: bool | None = Field(
        description="Whether it helped: the alert resolved after it acted; null while unknown."
    )
    target: str | None = Field(validation_alias="target_key", description="The resolved target.")
    alertname: str
    namespace: str
    labels: dict[str, str] = Field(description="Of the alert that the run was recorded for.")
    fingerprint: str
    attempt: int
    rung: int = Field(description="The level of escalation, from 0.")
    approved_by: str | None
    purpose: Purpose = Field(description="Its purpose: remedy answers an alert, undo and revert take a run back.")
    undoes: str | None = Field(description="The run that it takes back.")
    alert_starts_at: datetime
    received_at: datetime
    created_at: datetime
    updated_at: datetime
    not_before: datetime = Field(description="When it is looked at again, while it is not final.")
    started_at: datetime | None
    finished_at: datetime | None
    resolved_at: datetime | None = Field(description="When its last alert ended, by the alert's own account.")


class RunItem(RunSummary):
    """A run of the list: also its steps in words."""

    done: list[str] = Field(
        default=[], description="The steps that were done, a line for each, with the values before and after."
    )
    planned: list[str] = Field(default=[], description="The planned steps, a line for each, if no step was done.")


class RunPage(Answer):
    """Runs, newest first."""

    items: list[RunItem]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")


class StepAnswer(Answer):
    """One step: its plan, and its result."""

    rung: int
    position: int
    action: str
    state: str = Field(description="planned, started, succeeded, failed, skipped or interrupted.")
    summary: str | None = None
    params: JsonObject | None = None
    before: JsonObject | None = Field(default=None, description="The state of the target when it was planned.")
    desired: JsonObject | None = Field(default=None, description="The state that the step is to reach.")
    result: JsonObject | None = Field(default=None, description="The report of the action.")
    tries: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str | None = None
    error: str | None = None


class EpisodeAnswer(Answer):
    """One alert from firing to resolved."""

    id: str
    fingerprint: str
    alertname: str
    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    starts_at: datetime = Field(description="By the alert's own account.")
    first_seen_at: datetime
    last_seen_at: datetime = Field(description="The latest moment at which the alert fired, by any delivery.")
    deliveries: int = Field(description="How often it was sent.")
    firing: Annotated[list[str], BeforeValidator(sorted)] = Field(
        description="Fingerprints that have not resolved; one for each replica of Prometheus."
    )
    resolved_at: datetime | None = Field(description="By the alert's own account.")
    closed_at: datetime | None = Field(description="When we learnt of it; null while it fires.")


class EventAnswer(Answer):
    """One entry of the audit; it is written together with the change that it tells of."""

    id: int
    at: datetime
    kind: str
    state: str = Field(description="The run's state after it.")
    reason: str | None
    message: str
    actor: str = Field(description="`remediator`, or the name of the token that a person used.")
    data: JsonObject


class Events(Answer):
    """The events of a run, oldest first."""

    items: list[EventAnswer]


class RunDetail(RunItem):
    """Everything that is known of a run."""

    annotations: dict[str, str]
    generator_url: str
    specification: JsonObject = Field(
        validation_alias="spec", description="The remediation as it was then, without fields at their defaults."
    )
    catalog: str = Field(validation_alias="digest", description="The digest of the catalog then.")
    plan: JsonObject | None = Field(description="The latest plan: target, steps, checks.")
    decisions: list[JsonObject] = Field(description="The guards' latest answers, in their order.")
    admitted_at: datetime | None
    settle_until: datetime | None = Field(description="Until when the alert may take to resolve.")
    owner: str | None = Field(validation_alias="lease_owner", description="The replica that works on it now.")
    steps: list[StepAnswer] = Field(default=[])
    episodes: list[EpisodeAnswer] = Field(default=[])
    events: list[EventAnswer] = Field(default=[])


class RunReference(Answer):
    """A run that acts for an episode."""

    id: str
    remediation: str
    state: RunState
    reason: str | None
    message: str = Field(description="The last event, or the reason why nothing was done.")


class EpisodeItem(EpisodeAnswer):
    """An episode as a list shows it."""

    matched: list[str] = Field(description="The remediations that matched when it opened.")
    runs: list[RunReference]
    explanation: str | None = Field(description="Why no run was recorded, where none was.")


class EpisodePage(Answer):
    """Episodes, newest first."""

    items: list[EpisodeItem]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")


class CatalogItem(Answer):
    """A remediation as the list of them shows it."""

    name: str
    summary: str
    mode: Mode
    matchers: list[str]
    source: str = Field(description="The file and line where it is written.")


class FreezeAnswer(Answer):
    """A freeze of the running catalog."""

    name: str
    summary: str
    remediations: list[str] = Field(description="The names that it is for, with * for any part.")
    when: str = Field(description="Its times, as they are written.")
    holds: bool = Field(description="Whether it holds now.")
    until: datetime | None = Field(description="When it stops to hold; null while it does not.")


class CatalogAnswer(Answer):
    """The running catalog."""

    digest: str
    loaded_at: datetime
    files: list[str]
    items: list[CatalogItem]
    freezes: list[FreezeAnswer]
    warnings: list[str]
    last_reload_error: list[str] | None = Field(description="The problems of the files, if the service refused them.")
    is_newest: bool = Field(description="False: other replicas have a newer one; its runs are left to them.")


class RemediationAnswer(CatalogItem):
    """One remediation of the running catalog."""

    specification: dict[str, Any] = Field(description="With all defaults filled in.")
    digest: str = Field(description="Of the catalog.")


class Reloaded(Answer):
    """The files were read and are the running catalog now."""

    digest: str
    loaded_at: datetime
    remediations: int
    warnings: list[str]
