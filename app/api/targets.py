"""The targets that people may name: an impossible one is refused, and one that no run has had gives a warning."""

from __future__ import annotations

from sqlalchemy import select

from app.api.problems import ProblemError, ProblemReason
from app.api.services import Services
from app.backends.registry import targets
from app.domain.names import did_you_mean, listed
from app.domain.plans import NO_BACKEND
from app.store.db.schema import run

_MOST_KEYS = 1000


def key_objection(key: str) -> str | None:
    """Why a text is no target's key, with one that is; None where it may be one."""
    backend, _, rest = key.partition(":")
    if backend == NO_BACKEND and rest:
        return None
    kind = targets().get(backend)
    if kind is None or not rest:
        examples = " or ".join(one.example for one in targets().values())
        near = did_you_mean(backend, targets()).removeprefix("; ") if ":" in key else ""
        return f"must be a target's key as runs show it, for example {examples}" + (f"; {near}" if near else "")
    return kind.key_objection(rest)


def check_instance(services: Services, key: str) -> None:
    """Raise a problem where a target is on a server that the configuration does not have."""
    name = key.partition(":")[0]
    kind, connections = targets().get(name), services.parts.clients.connections
    known = connections.of(name)
    if kind is None or not known:
        return
    instance = kind.instance(key)
    if instance not in known:
        near = did_you_mean(instance, known) or f"; configured: {listed(known)}"
        detail = f"target: connections.{name} has no {instance[:63]!r}{near}"
        raise ProblemError(422, ProblemReason.WRONG_SHAPE, detail, field="target")


async def unseen(services: Services, key: str) -> list[str]:
    """A warning where no run has ever had this target: it may be meant for later, or mistyped."""
    async with services.database.browse() as tx:
        if (await tx.execute(select(run.c.id).where(run.c.target_key == key).limit(1))).first() is not None:
            return []
        query = select(run.c.target_key).where(run.c.target_key.is_not(None)).distinct().limit(_MOST_KEYS)
        known = list((await tx.execute(query)).scalars())
    return [f"no run has had the target {key[:200]!r} so far: the pause is for later runs{did_you_mean(key, known)}"]
