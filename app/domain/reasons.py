"""The closed set of reasons: why a run is where it is.

Reasons are part of the public interface (API, metrics, docs/troubleshooting.md); adding one is a visible change.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why something was decided or happened; each has its paragraph in docs/troubleshooting.md."""

    # the good endings
    VERIFIED = "verified"  # every check held (and the alert resolved, where `settle` asks for it)
    NOTHING_TO_DO = "nothing_to_do"  # the target was already in the state to reach
    # the run did not start
    MODE_OBSERVE = "mode_observe"  # dry run: the mode, or its global ceiling, is observe
    APPROVAL_REQUIRED = "approval_required"
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_REJECTED = "approval_rejected"
    PAUSED = "paused"
    OUT_OF_SCOPE = "out_of_scope"
    FROZEN = "frozen"  # within a freeze window
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    MAX_AGE = "max_age"  # the alert began longer ago than the remediation is meant for
    NOT_FIRING = "not_firing"  # Alertmanager does not have the alert any more
    SILENCED = "silenced"
    INHIBITED = "inhibited"
    MUTED = "muted"
    ALERTMANAGER_UNREACHABLE = "alertmanager_unreachable"
    BREAKER_OPEN = "breaker_open"
    BREAKER_DROPPED = "breaker_dropped"  # waited for a breaker that a person closed without letting it go on
    COOLDOWN = "cooldown"
    RATE = "rate"  # a window is full
    TOO_MANY_TARGETS = "too_many_targets"
    TARGET_BUSY = "target_busy"
    COVERED = "covered"  # a stronger action works on the target
    CONCURRENCY = "concurrency"
    STORM = "storm"
    POPULATION_UNKNOWN = "population_unknown"  # how much of the population is unhealthy could not be read
    ROLLOUT_IN_PROGRESS = "rollout_in_progress"
    ROLLOUT_PAUSED = "rollout_paused"
    NOT_YET = "not_yet"  # nothing is old enough for an action that selects by age
    OWNED_BY_HPA = "owned_by_hpa"
    OWNED_BY_KEDA = "owned_by_keda"
    OWNED_BY_OPERATOR = "owned_by_operator"  # controlled by an object of another kind, whose operator would undo it
    OWNED_BY_GITOPS = "owned_by_gitops"  # reconciled by Argo CD or Flux, which would undo it
    GUARD_FAILED = "guard_failed"  # a guard raised: fail closed
    PRECONDITION_FAILED = "precondition_failed"  # a `when` check does not hold
    REMEDIATION_REMOVED = "remediation_removed"  # no longer in the catalog when its turn came
    CANCELLED_BY_PERSON = "cancelled_by_person"
    RESOLVED_BEFORE_START = "resolved_before_start"
    FIRES_AGAIN = "fires_again"  # a change that was to be reverted is needed again
    NOTHING_TO_UNDO = "nothing_to_undo"
    # planning failed
    TEMPLATE_FAILED = "template_failed"  # a label that a template needs is missing, or its value has the wrong type
    EXPORTED_LABEL = "exported_label"  # a label names the exporter, and its twin exported_... the subject of the alert
    TARGET_NOT_FOUND = "target_not_found"
    TARGET_UNREACHABLE = "target_unreachable"
    FORBIDDEN = "forbidden"
    BOUNDS_REACHED = "bounds_reached"  # for example: already at the maximum of a scale
    # applying failed
    ACTION_FAILED = "action_failed"
    CHANGED_SINCE_PLANNED = "changed_since_planned"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    OUTCOME_UNKNOWN = "outcome_unknown"
    INTERRUPTED = "interrupted"  # a replica died in the middle of a step that must not be repeated
    # verifying failed
    CHECK_FAILED = "check_failed"
    CHECK_UNOBSERVABLE = "check_unobservable"
    TAKEN_BACK = "taken_back"  # it was done, and another manager has changed it back
    ALERT_STILL_FIRING = "alert_still_firing"
    # the remediator itself
    CONFIG_INVALID = "config_invalid"
    UNEXPECTED = "unexpected"
