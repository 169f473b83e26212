"""The tables. The run ledger is the queue; the inbox is the notifications as they came.

Times are microseconds since the epoch (exact, comparable and the same on both databases); ids sort by time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from app.domain import former_names
from app.store.db.dialects import Json

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# A partial index has its condition for SQLite only: migrations make PostgreSQL's, and to say both would import 2 MiB.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# SQLite numbers rows by itself only in a column of exactly this type.
_Serial = BigInteger().with_variant(Integer(), "sqlite")


@lru_cache(maxsize=256)  # a transaction writes the same few moments again and again
def microseconds(moment: datetime) -> int:
    """As stored: since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """From as it is stored."""
    return _EPOCH + timedelta(microseconds=value)


class Timestamp(TypeDecorator[datetime]):
    """An aware UTC datetime."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's
        """To microseconds."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        """From microseconds."""
        return None if value is None else from_microseconds(value)


class ReasonText(TypeDecorator[str]):
    """A reason, kept by the name that the release before this one knows."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """To the name that is kept."""
        return former_names.stored_reason(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """To the name of today."""
        return former_names.reason(value)


notification = Table(
    "notification",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("received_at", Timestamp, nullable=False),
    Column("receiver", Text, nullable=False),
    Column("group_key", Text, nullable=False),
    Column("alerts", Integer, nullable=False),
    Column("truncated", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("taken_in_at", Timestamp),
    Column("set_aside", Text),  # why it could not be taken in
    Index(
        "ix_notification_waiting",
        "id",
        sqlite_where=text("taken_in_at IS NULL"),
    ),
)

episode = Table(
    "episode",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("identity", String(64), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("alertname", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("labels", Json, nullable=False),
    Column("annotations", Json, nullable=False),
    Column("generator_url", Text, nullable=False),
    Column("starts_at", Timestamp, nullable=False),
    Column("first_seen_at", Timestamp, nullable=False),
    Column("last_seen_at", Timestamp, nullable=False),
    Column("firing", Json, nullable=False),  # fingerprints that have not resolved, with their latest startsAt
    Column("deliveries", Integer, nullable=False),
    Column("resolved_at", Timestamp),
    Column("closed_at", Timestamp),
    Column("matched", Json, nullable=False),  # names of the remediations that matched when it opened
    Column("defect", Text),  # why nothing is done about it, with any match
    Index("ix_episode_identity", "identity", "id"),
    Index("ix_episode_open", "id", sqlite_where=text("closed_at IS NULL")),
    Index(
        "uq_episode_open",
        "identity",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
    ),
)

# People said no, or nothing. As a text, since an index is used only for the very same words.
REFUSED_BY_PEOPLE = text("reason IN ('approval_expired', 'approval_rejected', 'cancelled_by_person')")

run = Table(
    "run",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("remediation", String(63), nullable=False),
    Column("spec", Json, nullable=False),  # the remediation as it was when the run was recorded
    Column("digest", String(64), nullable=False),  # of the catalog then
    Column("state", String(20), nullable=False),
    Column("reason", ReasonText),
    Column("message", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("rung", Integer, nullable=False),
    Column("labels", Json, nullable=False),
    Column("annotations", Json, nullable=False),
    Column("alertname", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("generator_url", Text, nullable=False),
    Column("alert_starts_at", Timestamp, nullable=False),
    Column("received_at", Timestamp, nullable=False),
    Column("target_key", Text),
    Column("holds_target", Boolean, nullable=False),
    Column("plan", Json),
    Column("decisions", Json, nullable=False),
    Column("setback", Json),  # why the rung before this one did not help
    Column("approved_by", Text),
    Column("purpose", String(10), nullable=False, server_default="remedy"),  # remedy | undo | revert
    Column("undoes", String(36)),  # the run whose steps this one takes back
    Column("judge_at", Timestamp),  # when a run whose alert still fires is counted as ineffective
    Column("tell_at", Timestamp),  # when people are told that a deferred run still waits
    Column("unreachable_since", Timestamp),  # when planning its rung first failed because nothing answered
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("not_before", Timestamp, nullable=False),
    Column("admitted_at", Timestamp),
    Column("started_at", Timestamp),
    Column("settle_until", Timestamp),
    Column("finished_at", Timestamp),
    Column("resolved_at", Timestamp),
    Column("effective", Boolean),
    Column("lease_owner", String(64)),
    Column("lease_until", Timestamp),
    Column("lease_epoch", Integer, nullable=False),
    Index("ix_run_due", "not_before", sqlite_where=text("active")),
    Index(
        "uq_run_holds_target",
        "target_key",
        unique=True,
        sqlite_where=text("holds_target"),
    ),
    Index(
        "ix_run_lease_until",
        "lease_until",
        sqlite_where=text("lease_until IS NOT NULL"),
    ),
    Index("ix_run_target_key", "target_key", "finished_at"),
    # Beside a target's observed runs, of which there may be very many, these are few.
    Index("ix_run_target_acted", "target_key", "finished_at", sqlite_where=text("admitted_at IS NOT NULL")),
    Index("ix_run_target_admitted", "target_key", "admitted_at", sqlite_where=text("admitted_at IS NOT NULL")),
    Index("ix_run_target_answered", "target_key", "finished_at", sqlite_where=REFUSED_BY_PEOPLE),
    Index("ix_run_helped", "resolved_at", sqlite_where=text("effective")),
    Index("ix_run_admitted", "admitted_at"),
    Index("ix_run_remediation_admitted", "remediation", "admitted_at"),
    Index(  # what records.py asks, without reading the rows; its first columns serve pages of one remediation too
        "ix_run_record", "remediation", "id", "purpose", "state", "effective", "resolved_at", "alert_starts_at"
    ),
    Index("ix_run_state_id", "state", "id"),
    Index("ix_run_alertname_id", "alertname", "id"),
    Index("ix_run_namespace_id", "namespace", "id"),
    Index(
        "ix_run_judge_at",
        "judge_at",
        sqlite_where=text("judge_at IS NOT NULL"),
    ),
    Index("ix_run_tell_at", "tell_at", sqlite_where=text("tell_at IS NOT NULL")),
    Index("ix_run_undoes", "undoes", sqlite_where=text("undoes IS NOT NULL")),
)

run_episode = Table(
    "run_episode",
    metadata,
    Column("run_id", String(36), ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("episode_id", String(36), ForeignKey("episode.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_run_episode_episode", "episode_id"),
)

step = Table(
    "step",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("run_id", String(36), ForeignKey("run.id", ondelete="CASCADE"), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("action", Text, nullable=False),
    Column("planned", Json, nullable=False),  # the step as planned; a further rung replaces the run's plan
    Column("state", String(20), nullable=False),  # started | succeeded | failed | skipped | interrupted
    Column("tries", Integer, nullable=False),
    Column("started_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp),
    Column("result", Json),
    Column("reason", ReasonText),
    Column("error", Text),
    UniqueConstraint("run_id", "rung", "position"),
)

event = Table(
    "event",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    # The chain: a run (no foreign key, since the audit outlives a folded run), catalog/<remediation> or service.
    Column("run_id", String(80), nullable=False),
    Column("at", Timestamp, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", ReasonText),
    Column("message", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("data", Json, nullable=False),
    Column("seq", Integer),  # within the chain, from 1; empty: recorded by a release without chains
    Column("hash", String(64)),
    # The transaction on PostgreSQL, where ids may be committed out of order; readers follow (tx, id).
    Column("tx", BigInteger, nullable=False, server_default=text("0")),
    Index("ix_event_run", "run_id", "id"),
    Index("ix_event_tx", "tx", "id"),
    UniqueConstraint("run_id", "seq"),
)

seal = Table(
    "seal",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("at", Timestamp, nullable=False),
    Column("to_tx", BigInteger, nullable=False),  # events up to here (tx, id) are covered
    Column("to_id", BigInteger, nullable=False),
    Column("leaves", Json),  # [chain, seq, hash] of each chain that had grown; empty once these are pruned
    Column("leaves_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ix_seal_leaves", "id", sqlite_where=text("leaves IS NOT NULL")),
)

hold = Table(
    "hold",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("scope", String(12), nullable=False),  # all | remediation | target
    Column("subject", Text, nullable=False),  # the remediation's name, the target's key, or empty
    Column("holder", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("since", Timestamp, nullable=False),
    Column("until", Timestamp),
    Column("is_length", Boolean, nullable=False, server_default=false()),  # it was given as a length, not as its end
    Column("ended_at", Timestamp),
    Column("ended_by", Text),
    Index(
        "uq_hold_standing",
        "scope",
        "subject",
        "holder",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
    ),
)

clock = Table(  # one row
    "clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("shifted", BigInteger, nullable=False),  # microseconds by which the times here were moved, after the clock
    Column("seen_at", Timestamp),  # when a replica last compared
)

leadership = Table(  # on PostgreSQL, by its clock
    "leadership",
    metadata,
    Column("matter", String(40), primary_key=True),
    Column("holder", String(64), nullable=False),  # a replica
    Column("since", Timestamp, nullable=False),
    Column("renewed_at", Timestamp, nullable=False),
    Column("until", Timestamp, nullable=False),
)

breaker = Table(
    "breaker",
    metadata,
    Column("remediation", String(63), primary_key=True),
    Column("failures", Integer, nullable=False),  # failed or ineffective runs in a row
    Column("opened_at", Timestamp),
    Column("trial_at", Timestamp),  # when one run may be tried
    Column("trial", String(36)),  # the run that is being tried
)

storm = Table(
    "storm",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("remediation", String(63), nullable=False),  # empty: over all remediations
    Column("message", Text, nullable=False),
    Column("began_at", Timestamp, nullable=False),
    Column("until", Timestamp, nullable=False),
    Index("ix_storm_remediation", "remediation", "until"),
)

catalog = Table(
    "catalog",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),  # the highest is the newest
    Column("served_at", Timestamp, nullable=False),  # by any replica, as it last said
)

standing = Table(
    "standing",
    metadata,
    Column("remediation", String(63), primary_key=True),
    Column("digest", String(64), nullable=False),  # of the remediation's steps; another one begins again
    Column("mode", String(10), nullable=False),  # as far as it has come
    Column("since", Timestamp, nullable=False),
    Column("good", Integer, nullable=False),  # in a row, since it came to this mode
    Column("bad", Integer, nullable=False),
)

message = Table(
    "message",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("key", Text, nullable=False, unique=True),  # one message for one occasion
    Column("run_id", String(36)),
    Column("channel", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("not_before", Timestamp, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("sent_at", Timestamp),
    Column("given_up_at", Timestamp),
    Column("error", Text),
    Column("type", Text),  # Apprise's; null where a release has queued it that knew warnings only
    Index(
        "ix_message_channel_due",
        "channel",
        "not_before",
        sqlite_where=text("sent_at IS NULL AND given_up_at IS NULL"),
    ),
)
