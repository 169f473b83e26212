"""The targets that people may name: an impossible one is refused, and one that no run has had gives a warning."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from app.api.problems import ProblemError, ProblemReason
from app.api.services import Services
from app.backends.kubernetes.objects import WORKLOAD_KINDS, ObjectRef, target_ref
from app.catalog.names import did_you_mean, listed
from app.domain.errors import PermanentError
from app.domain.plans import BACKENDS
from app.store.db.schema import run

_SHAPES = {
    "kubernetes": "kubernetes:Deployment/shop/api",
    "postgres": "postgres:main/orders",
    "redis": "redis:cache/0",
}
_MOST_KEYS = 1000


def key_objection(key: str) -> str | None:
    """Say why a text is no target's key, with one that is; None where it may be one."""
    backend, _, rest = key.partition(":")
    if backend not in BACKENDS or not rest:
        example = _SHAPES["kubernetes"]
        near = did_you_mean(backend, BACKENDS).removeprefix("; ") if ":" in key else ""
        return f"must be a target's key as runs show it, for example {example}" + (f"; {near}" if near else "")
    parts = rest.split("/")
    if backend == "kubernetes":
        return _workload_objection(parts)
    if backend == "none":
        return None
    if len(parts) < 2 or not all(parts) or (backend == "redis" and not parts[-1].isdecimal()):  # noqa: PLR2004
        return f"must be a target's key as runs show it, for example {_SHAPES[backend]}"
    return None


def _workload_objection(parts: list[str]) -> str | None:
    shape = f"for example {_SHAPES['kubernetes']}"
    if len(parts) != 3:  # noqa: PLR2004 - kind, namespace, name
        return f"must have a kind, a namespace and a name, {shape}"
    kind, namespace, name = parts
    if kind not in WORKLOAD_KINDS:
        near = did_you_mean(kind, WORKLOAD_KINDS)
        return f"must have a kind that runs act on ({', '.join(WORKLOAD_KINDS)}), {shape}{near}"
    try:
        ref: ObjectRef = target_ref(kind, namespace, name)
    except PermanentError as error:
        return f"cannot be a target: {error.message}"
    return None if ref.name else f"must have a name, {shape}"


def check_instance(services: Services, key: str) -> None:
    """Raise a problem where a target is on a server that the configuration does not have."""
    backend, _, rest = key.partition(":")
    connections = services.parts.clients.connections
    known: Collection[str] = ()
    if backend in {"postgres", "redis"}:
        known = connections.postgres if backend == "postgres" else connections.redis
    instance = rest.rpartition("/")[0]
    if known and instance not in known:
        near = did_you_mean(instance, known) or f"; configured: {listed(known)}"
        detail = f"target: connections.{backend} has no {instance[:63]!r}{near}"
        raise ProblemError(422, ProblemReason.WRONG_SHAPE, detail, field="target")


async def unseen(services: Services, key: str) -> list[str]:
    """Return a warning where no run has ever had this target: it may be meant for later, or mistyped."""
    async with services.database.browse() as tx:
        if (await tx.execute(select(run.c.id).where(run.c.target_key == key).limit(1))).first() is not None:
            return []
        query = select(run.c.target_key).where(run.c.target_key.is_not(None)).distinct().limit(_MOST_KEYS)
        known = list((await tx.execute(query)).scalars())
    return [f"no run has had the target {key[:200]!r} so far: the pause is for later runs{did_you_mean(key, known)}"]
