"""Names that were changed, and what the store makes of them."""

from __future__ import annotations

from app.domain import former_names
from app.domain.remediation import Remediation

OLD = {
    "name": "a",
    "summary": "S.",
    "match": ['alertname="A"'],
    "runbook": "https://docs.example/runbooks",
    "expires": "3600s",
    "without_guards": {"late": "why", "rate_limit": "why", "storm": "why"},
    "steps": [{"action": "http.request", "with": {"url": "https://shop.example/"}}],
}


def test_what_the_release_before_wrote_is_read() -> None:
    """Each field and each guard, whatever it is called now."""
    read = Remediation.model_validate(former_names.specification(OLD))
    assert (('alertname="A"',), "https://docs.example/runbooks") == (read.matchers, read.runbook_url)
    assert (3600, {"max_age", "rate", "storm"}) == (read.max_age.total_seconds(), {*read.without_guards})


def test_what_is_stored_is_what_the_release_before_reads() -> None:
    """It works on the same store during a rolling upgrade, and names are all that has changed."""
    read = Remediation.model_validate(former_names.specification(OLD))
    assert OLD.keys() == read.stored.keys()
    for name in ("without_guards", "steps"):
        assert OLD[name] == read.stored[name]
    assert read == Remediation.model_validate(former_names.specification(read.stored))
    assert (None, "late", "rate_limited", "verified") == tuple(
        former_names.stored_reason(reason) for reason in (None, "max_age", "rate", "verified")
    )
    assert (None, "max_age", "rate", "verified") == tuple(
        former_names.reason(stored) for stored in (None, "late", "rate_limited", "verified")
    )


def test_a_digest_of_the_release_before_still_holds() -> None:
    """What a remediation has earned is kept by the digest of what it does."""
    read = Remediation.model_validate(former_names.specification(OLD))
    assert "c3a25fa51488f4c0749cb443a04bcc347bb3c4c955174cd7007000c1ecf36201" == read.deed


def test_stored_decisions_are_shown_in_the_names_of_today() -> None:
    """Whatever else they have stays as it is."""
    old = {"guard": "rate_limit", "verdict": "defer", "reason": "rate_limited", "message": "m", "until": None}
    assert old | {"guard": "rate", "reason": "rate"} == former_names.decision(old)
    assert {"guard": "mode", "verdict": "allow"} == former_names.decision({"guard": "mode", "verdict": "allow"})
