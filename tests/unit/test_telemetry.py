"""The text of /metrics, which is made in pieces."""

from __future__ import annotations

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import Metrics

NAMES = [f"restart-{number}" for number in range(120)]


def test_pieces_make_the_text_that_one_go_makes() -> None:
    """A family of many series has its help and its type once."""
    metrics = Metrics("1.2.3")
    metrics.initialise(NAMES, ["http.request"], ["http.ok"])
    metrics.breaker_state.labels(NAMES[0]).set(2)

    def ours(text: bytes) -> list[bytes]:
        return [line for line in text.splitlines() if b"process_" not in line]

    assert ours(generate_latest(metrics.registry)) == ours(b"".join(metrics.exposition()))


def test_thousands_of_series_are_many_pieces() -> None:
    """They take tens of milliseconds, which nobody else is to wait for."""
    metrics = Metrics("1.2.3")
    metrics.initialise(NAMES, [], [])
    assert max(piece.count(b"\n") for piece in metrics.exposition()) < len(NAMES)


def test_a_remediation_that_is_gone_has_no_state() -> None:
    """It would be taken for one that is still there; what it did still counts."""
    metrics = Metrics("1.2.3")
    for names in (NAMES[:2], NAMES[1:3]):
        metrics.initialise(names, [], [])
        metrics.forget_all_but(names)
        for name in names:
            metrics.breaker_state.labels(name).set(0)
    families = {one.name: one for one in text_string_to_metric_families(b"".join(metrics.exposition()).decode())}
    assert set(NAMES[1:3]) == {one.labels["remediation"] for one in families["remediator_breaker_state"].samples}
    assert set(NAMES[:3]) == {one.labels["remediation"] for one in families["remediator_runs"].samples}
