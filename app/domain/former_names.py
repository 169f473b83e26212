"""Names that were changed: how the store goes on writing them, and which new one the catalog names for an old one.

The release before this one works on the same store during a rolling upgrade and knows the old names only. So the store
keeps those, in specifications and as reasons, and this release translates them at its edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIELDS: Mapping[str, str] = {"match": "matchers", "runbook": "runbook_url", "expires": "max_age"}
GUARDS: Mapping[str, str] = {"late": "max_age", "rate_limit": "rate"}
REASONS: Mapping[str, str] = {"late": "max_age", "rate_limited": "rate"}
_GUARDS_OFF = "without_guards"


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}


_OLD_FIELDS, _OLD_GUARDS, _OLD_REASONS = _inverse(FIELDS), _inverse(GUARDS), _inverse(REASONS)


def stored_specification(given: Mapping[str, Any]) -> dict[str, Any]:
    """A remediation in the names that the store keeps."""
    return _translated(given, _OLD_FIELDS, _OLD_GUARDS)


def specification(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A remediation of the store in the names of today, whichever release wrote it."""
    return _translated(stored, FIELDS, GUARDS)


def _translated(given: Mapping[str, Any], fields: Mapping[str, str], guards: Mapping[str, str]) -> dict[str, Any]:
    result = {fields.get(name, name): value for name, value in given.items()}
    if _GUARDS_OFF in result:
        result[_GUARDS_OFF] = {guards.get(name, name): why for name, why in result[_GUARDS_OFF].items()}
    return result


def stored_reason(reason: str | None) -> str | None:
    """A reason as the store keeps it."""
    return None if reason is None else _OLD_REASONS.get(reason, str(reason))


def reason(stored: str | None) -> str | None:
    """A reason of the store in the name of today."""
    return None if stored is None else REASONS.get(stored, stored)


def decision(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A guard's stored answer in the names of today; the store keeps these as they were written."""
    named = {"guard": GUARDS, "reason": REASONS}
    return {key: named[key].get(value, value) if key in named else value for key, value in stored.items()}
