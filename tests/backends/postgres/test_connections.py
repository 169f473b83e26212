"""postgres.connections against a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from app.backends.connections import Connections
from app.backends.postgres.checks.connections import Connections as Check
from app.domain.errors import CheckError
from app.domain.plans import Observation, Target
from tests.support import contexts
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port
from tests.support.shop import Shop


def observe(shop: Shop, **given: Any) -> Observation:
    """Look once with the remediator's own role."""
    return contexts.observe(shop.connections(), Check(), shop.target, **given)


@pytest.mark.parametrize(("most", "held"), [(1, False), (2, True)])
def test_counts_the_connections_of_the_database(shop: Shop, most: int, held: bool) -> None:
    """The bound is inclusive and the check's own connection is not counted."""
    _sessions = [shop.session(), shop.session()]
    assert (held, 2) == (observe(shop, max=most).held, observe(shop, max=most).data["connections"])


def test_counts_only_the_asked_state(shop: Shop) -> None:
    """A session in a transaction is neither idle nor active."""
    shop.session().execute("BEGIN")
    shop.session()
    counted = [observe(shop, max=9, state=state).data["connections"] for state in ("idle", "active", "any")]
    assert [1, 0, 2] == counted


def test_counts_the_whole_server_when_asked(shop: Shop, postgres_server: PostgresServer) -> None:
    """Sessions of other databases count with `scope: server` only."""
    with postgres_server.database() as other:
        target = Target(backend="postgres", key=f"postgres:main/{other}", name=other)
        shop.session()
        counted = [
            contexts.observe(shop.connections(), Check(), target, max=0, scope=scope).held
            for scope in ("database", "server")
        ]
    assert [True, False] == counted


def test_min_free_looks_at_max_connections(shop: Shop) -> None:
    """What is free is what max_connections leaves."""
    shop.session()
    allowed = observe(shop, min_free=1).data["max_connections"]
    assert (True, False) == (observe(shop, min_free=1).held, observe(shop, min_free=allowed).held)


def test_hidden_sessions_are_no_observation(shop: Shop) -> None:
    """A role that cannot see the sessions cannot count them."""
    shop.session()
    shop.server.execute(f"REVOKE pg_read_all_stats FROM {shop.remediator_role}")
    with pytest.raises(CheckError, match="pg_read_all_stats"):
        observe(shop, max=5)


def test_a_server_that_is_away_is_no_observation(configured: Callable[[str], Connections]) -> None:
    """Not being able to look is an error of its own, without the password."""
    target = Target(backend="postgres", key="postgres:main/shop", name="shop")
    connections = configured(f"postgresql://u:correct-horse@127.0.0.1:{free_port()}/shop")
    with pytest.raises(CheckError) as caught:
        contexts.observe(connections, Check(), target, max=5)
    assert "correct-horse" not in caught.value.message


@pytest.mark.parametrize("given", [{}, {"max": 1, "min_free": 1}, {"min_free": 1, "state": "idle"}])
def test_exactly_one_bound(given: dict[str, Any]) -> None:
    """Parameters that mean nothing are refused when the catalog is loaded."""
    with pytest.raises(ValidationError):
        Check.Params.model_validate(given)
