"""Alertmanager's notifications (webhook payload version 4) and the alerts in them.

Unknown fields are accepted, since releases add them (`notification_reason` in 0.32, `routeLabels` in 0.34).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    PrivateAttr,
    Strict,
    StringConstraints,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

# Go's zero time: the value of `endsAt` while an alert fires.
UNSET_YEAR = 1

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
# The same where an offset cannot move a time out of the calendar: Go's zero time, and others of the years at its ends,
# only in UTC.
_RFC3339_SAFE = (
    r"^(?:(?:0001|9999)-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]00:00)"
    r"|(?:000[2-9]|00[1-9]\d|0[1-9]\d\d|[1-8]\d{3}|9[0-8]\d\d|99[0-8]\d|999[0-8])"
    r"-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d))$"
)
_NOT_RFC3339 = "must be a time as RFC 3339 writes it, between the years 1 and 9999 in UTC: 2026-01-31T12:00:00Z"
_NUL = re.compile(rb"\\u0000")  # to search for it takes half as long as `in`
_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_MAX_COUNT = 2**31 - 1  # the limits of the store's columns


def _rfc3339(value: object) -> object:
    """Numbers and other forms of dates are no times to Alertmanager; they are a mistake somewhere."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError(_NOT_RFC3339)


def _utc(value: datetime) -> datetime:
    """Convert to UTC; refuse a time that its offset moves out of the calendar."""
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("must be a time between the years 1 and 9999 in UTC") from error


def _without_python(_source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Parse times without a call from the JSON parser: a body of thousands of alerts has two times in each."""
    form = core_schema.str_schema(pattern=_RFC3339_SAFE)
    read: list[CoreSchema] = [
        core_schema.custom_error_schema(form, "rfc3339", custom_error_message=_NOT_RFC3339),
        core_schema.datetime_schema(tz_constraint="aware"),
    ]
    return core_schema.json_or_python_schema(core_schema.chain_schema(read), handler(_PythonTime))


Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,32}$")]
_PythonTime = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_utc)]
Time = Annotated[datetime, GetPydanticSchema(_without_python)]
# Far beyond Prometheus' own default limits, and small enough that no alert costs more than others. Characters.
MAX_PAIRS, MAX_NAME, MAX_VALUE = 500, 1024, 64 * 1024
_LEFT_OUT = "remediator_left_out"  # an annotation that says how many others are not kept
_FIRST = ("alertname", "namespace")  # people look for an alert by these
_Name = Annotated[str, StringConstraints(max_length=MAX_NAME)]
_Value = Annotated[str, StringConstraints(max_length=MAX_VALUE)]
# The first wrong entry ends the reading: a body of many megabytes may hold millions of them.
Pairs = Annotated[dict[_Name, _Value], FailFast()]
AnyPairs = Annotated[dict[str, str], FailFast()]


class Alert(BaseModel):
    """One alert of a notification; `status` is its own and may differ from the group's status."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Literal["firing", "resolved"]
    labels: Pairs = Field(min_length=1, max_length=MAX_PAIRS)
    annotations: Pairs = Field(default_factory=dict, max_length=MAX_PAIRS)
    starts_at: Time = Field(alias="startsAt")
    ends_at: Time | None = Field(default=None, alias="endsAt")
    generator_url: _Value = Field(default="", alias="generatorURL")
    fingerprint: Fingerprint

    @property
    def defect(self) -> str:
        """Why nothing may be done about the alert; empty where all of it is kept that decisions depend on."""
        return ""

    @property
    def is_firing(self) -> bool:
        """Whether this alert was firing when the notification was made."""
        return self.status == "firing"

    @property
    def resolved_at(self) -> datetime | None:
        """When the alert ended; None while `endsAt` is unset."""
        return None if self.ends_at is None or self.ends_at.year == UNSET_YEAR else self.ends_at


class AnyAlert(Alert):
    """An alert of any size, as its sender made it; `kept` is the part of it that the store gets."""

    labels: AnyPairs = Field(min_length=1)
    annotations: AnyPairs = Field(default_factory=dict)
    generator_url: str = Field(default="", alias="generatorURL")

    @property
    def defect(self) -> str:
        """The part of its labels that is too much. Without them a matcher or a template could mean another alert."""
        if _fit(self.labels):
            return ""
        if len(self.labels) > MAX_PAIRS:
            return f"it has {len(self.labels)} labels, and {MAX_PAIRS} are the most"
        name = max(self.labels, key=len)
        if len(name) > MAX_NAME:
            return f"the name of a label has {len(name)} characters, and {MAX_NAME} are the most"
        name, value = max(self.labels.items(), key=lambda pair: len(pair[1]))
        return f'the label "{name}" has {len(value)} characters, and {MAX_VALUE} are the most'

    def kept(self) -> Alert:
        """Within the bounds: long annotations are cut and say so; labels that do not fit set the alert aside."""
        defect = self.defect
        if not defect and _fit(self.annotations) and len(self.generator_url) <= MAX_VALUE:
            return self
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        values |= {"annotations": _cut(self.annotations), "generator_url": self.generator_url[:MAX_VALUE]}
        if not defect:
            return Alert.model_construct(**values)
        return _SetAside.model_construct(**values | {"labels": _fitting(self.labels), "why": defect})


class _SetAside(Alert):
    """An alert without the labels that were too much, for people to see."""

    why: str

    @property
    def defect(self) -> str:
        """As it was found."""
        return self.why


def _fit(pairs: dict[str, str]) -> bool:
    sizes = ((len(name), len(value)) for name, value in pairs.items())
    return len(pairs) <= MAX_PAIRS and all(name <= MAX_NAME and value <= MAX_VALUE for name, value in sizes)


def _cut(annotations: dict[str, str]) -> dict[str, str]:
    fitting = {name: value for name, value in annotations.items() if len(name) <= MAX_NAME}
    if len(fitting) < len(annotations) or len(fitting) > MAX_PAIRS:
        fitting = dict(list(fitting.items())[: MAX_PAIRS - 1])
        fitting[_LEFT_OUT] = f"{len(annotations) - len(fitting)} annotations, too many or with too long names"
    return {name: value if len(value) <= MAX_VALUE else _shortened(value) for name, value in fitting.items()}


def _shortened(value: str) -> str:
    mark = f"… [cut: it had {len(value)} characters]"
    return value[: MAX_VALUE - len(mark)] + mark


def _fitting(labels: dict[str, str]) -> dict[str, str]:
    """As many labels as fit, always the same ones."""
    ordered = sorted(labels.items(), key=lambda pair: (pair[0] not in _FIRST, pair[0]))
    return {name: value for name, value in ordered[:MAX_PAIRS] if len(name) <= MAX_NAME and len(value) <= MAX_VALUE}


class Notification(BaseModel):
    """One POST of Alertmanager."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal["4"]
    receiver: str
    status: Literal["firing", "resolved"]
    alerts: Annotated[list[Alert], FailFast()]
    group_key: str = Field(default="", alias="groupKey")
    truncated_alerts: Annotated[int, Strict()] = Field(default=0, ge=0, le=_MAX_COUNT, alias="truncatedAlerts")
    external_url: str = Field(default="", alias="externalURL")
    _unreadable: tuple[int, ...] = PrivateAttr(default=())
    _defects: int = PrivateAttr(default=0)

    @property
    def unreadable(self) -> tuple[int, ...]:
        """The places of entries that are no alerts and were left out."""
        return self._unreadable

    @property
    def defects(self) -> int:
        """How many of the alerts have a defect."""
        return self._defects

    def found_with(self, unreadable: tuple[int, ...], defects: int) -> Self:
        """Remember which entries were left out, and how many have a defect."""
        self._unreadable, self._defects = unreadable, defects
        return self


def _none_if_wrong(_source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
    return core_schema.with_default_schema(handler(AnyAlert), default=None, on_error="default")


class _AnyNotification(Notification):
    """A notification; an alert in it may be too large, and an entry may be no alert at all: None."""

    alerts: list[Annotated[Any, GetPydanticSchema(_none_if_wrong)]]


def parse_notification(body: bytes) -> Notification:
    """Read a webhook body; raises pydantic.ValidationError where no alert of it can be kept.

    A NUL in a label is legal UTF-8 for Prometheus and cannot be stored by PostgreSQL; it becomes U+FFFD.
    """
    if _NUL.search(body):
        body = _ESCAPED_NUL.sub(rb"\1\\ufffd", body)
    try:
        return Notification.model_validate_json(body)
    except ValidationError as error:
        return _parse_partly(body, error)


def _parse_partly(body: bytes, error: ValidationError) -> Notification:
    """Every alert of a body that can be kept, so that none costs the others; raises the error where there is none."""
    try:
        read = _AnyNotification.model_validate_json(body)
    except ValidationError:
        raise error from None
    alerts = [one.kept() for one in read.alerts if one is not None]
    if not alerts:
        raise error
    values = {name: getattr(read, name) for name in type(read).model_fields} | {"alerts": alerts}
    unreadable = tuple(number for number, one in enumerate(read.alerts) if one is None)
    return Notification.model_construct(**values).found_with(unreadable, sum(bool(one.defect) for one in alerts))


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """The fingerprint that Prometheus and Alertmanager give an alert with these labels (FNV-1a, 64 bits)."""
    found = _FNV_OFFSET
    for name in sorted(labels):
        for text in (name, labels[name]):
            for byte in (*text.encode("utf-8", "surrogatepass"), 0xFF):
                found = (found ^ byte) * _FNV_PRIME & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def identity(labels: Mapping[str, str], fingerprint: str, ignored: Collection[str]) -> str:
    """Name the alert across the replicas of an HA Prometheus: its fingerprint, or a hash that leaves `ignored` out."""
    if not any(name in labels for name in ignored):
        return fingerprint
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(labels):
        if name not in ignored:
            digest.update(f"{len(name)}:{name}={len(labels[name])}:{labels[name]};".encode())
    return digest.hexdigest()
