"""The Kubernetes cluster, over the asyncio half of the official client.

Actions, checks and target resolution call it. Objects pass through as the JSON that the API server speaks, so that
nothing is lost or reordered between a read and the write that depends on it. It retries nothing but a write that lost
a race, and it never writes without naming the version of the object that it read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException
from multidict import CIMultiDict

from app import __version__
from app.backends.base import DEFAULT
from app.backends.kubernetes.backend import KubernetesConnection
from app.backends.kubernetes.credentials import credentials
from app.backends.kubernetes.errors import Call, StaleWriteError, error_of, unreached
from app.backends.kubernetes.objects import WORKLOAD_KINDS, ObjectRef, target_key, target_ref
from app.backends.kubernetes.origin import FIELD_MANAGER
from app.backends.kubernetes.owners import workload_of_pod
from app.backends.kubernetes.workloads import Workload, is_unhealthy, workload
from app.backends.shared import Shared
from app.domain.errors import PermanentError, TransientError
from app.domain.external_facts import Population
from app.domain.model import JsonObject
from app.domain.permissions import Permission
from app.domain.plans import Target
from app.domain.reasons import Reason
from app.domain.redaction import SECRETS

_TURNS = 2  # of the loop, until each timer that is due has run
_RACES = 10  # a status update may touch the object between read and write; more often than this is no accident
_PAGE = 500  # objects in one answer of a list
_SHARED_SECONDS = 1.0
_SUCCESS = range(200, 300)
_READ = {"Accept": "application/json"}
_WRITE = {"Accept": "application/json", "Content-Type": "application/merge-patch+json"}
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

Query = Sequence[tuple[str, str]]
Change = Callable[[JsonObject], JsonObject | None]


@dataclass(frozen=True, slots=True)
class _Request:
    """The body for the API server."""

    method: str
    path: str
    query: Query = ()
    headers: Mapping[str, str] = field(default_factory=lambda: _READ)
    body: JsonObject | None = None


class KubernetesClient:
    """Reads and changes objects of one cluster."""

    def __init__(self, api: ApiClient, impersonation: Query, timeout: timedelta, cluster: str = DEFAULT) -> None:
        self._cluster = cluster
        self._api = api
        self._impersonation = impersonation
        self._timeout = timeout.total_seconds()
        self._populations: Shared[str, Population] = Shared(_SHARED_SECONDS)

    @classmethod
    async def connect(
        cls,
        connection: KubernetesConnection,
        timeout: timedelta,  # noqa: ASYNC109 - of each later call, not of this one
        cluster: str = DEFAULT,
    ) -> KubernetesClient:
        """Load the credentials; the cluster itself is first reached by the first call."""
        try:
            found = await credentials(connection)
            api = ApiClient(found.configuration)
        except (ConfigException, OSError, ValueError, TypeError) as error:
            place = connection.kubeconfig or "the service account of this pod"
            message = f"cannot read the cluster's credentials from {place}: {error}"
            message += (
                "" if connection.kubeconfig else f" (outside of a pod, set connections.kubernetes.{cluster}.kubeconfig)"
            )
            raise PermanentError(message, reason=Reason.CONFIG_INVALID) from error
        api.user_agent = f"remediator/{__version__}"
        return cls(api, found.impersonation, timeout, cluster)

    async def close(self) -> None:
        """Close the connections."""
        await self._populations.close()
        await self._api.close()

    async def resolve(self, kind: str, namespace: str, name: str) -> Target:
        """The workload that a target names; for a Pod the one that owns it. Its existence has been seen."""
        ref = target_ref(kind, namespace, name)
        if ref.kind == "Pod":
            return _target(await workload_of_pod(self, ref), self._cluster, resolved_from=str(ref))
        await self.get(ref)
        return _target(ref, self._cluster)

    async def workload(self, target: Target) -> Workload:
        """The target as it is now; raises PermanentError where it does not exist."""
        ref = target_ref(target.kind, target.namespace, target.name)
        return workload(ref, await self.get(ref))

    async def get(self, ref: ObjectRef) -> JsonObject:
        """One object; raises PermanentError with TARGET_NOT_FOUND where there is none."""
        return await self._call(Call("get", ref))

    async def find(self, ref: ObjectRef) -> JsonObject | None:
        """One object, or None."""
        try:
            return await self.get(ref)
        except PermanentError as error:
            if error.reason is Reason.TARGET_NOT_FOUND:
                return None
            raise

    async def list(self, ref: ObjectRef) -> tuple[JsonObject, ...]:
        """All objects of the kind and namespace of `ref`, page by page."""
        query, found = [("limit", str(_PAGE))], []
        while True:
            page = await self._call(Call("list", ref), query=query)
            found += page["items"]
            following = page["metadata"].get("continue")
            if not following:
                return tuple(found)
            query = [("limit", str(_PAGE)), ("continue", following)]

    async def population(self, namespace: str) -> Population:
        """The workloads of a namespace and which of them are unhealthy; decisions of the same second share it."""
        return await self._populations.get(namespace, self._population(namespace))

    async def _population(self, namespace: str) -> Population:
        refs = [ObjectRef(kind, namespace) for kind in WORKLOAD_KINDS]
        found = await asyncio.gather(*(self.list(ref) for ref in refs))
        health = {
            target_key(ObjectRef(ref.kind, namespace, raw["metadata"]["name"]), self._cluster): is_unhealthy(
                ref.kind, raw
            )
            for ref, page in zip(refs, found, strict=True)
            for raw in page
        }
        return Population(
            where=f"namespace {namespace}",
            total=len(health),
            unhealthy=frozenset(key for key, unhealthy in health.items() if unhealthy),
            members=frozenset(health),
        )

    async def may(self, verb: str, permission: Permission, namespace: str) -> bool:
        """Whether we have a right in a namespace (empty: in all of them), by the API server's own word."""
        resource, _, subresource = permission.resource.partition("/")
        wanted = {"namespace": namespace, "verb": verb, "group": permission.group}
        wanted |= {"resource": resource, "subresource": subresource}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        call = Call("create", ObjectRef("SelfSubjectAccessReview", namespace or "default"))
        request = _Request("POST", _REVIEWS, headers=_JSON, body=review | {"spec": {"resourceAttributes": wanted}})
        return bool((await self._ask(call, request))["status"]["allowed"])

    async def update(
        self, ref: ObjectRef, change: Change, subresource: str = "", *, dry_run: bool = False
    ) -> tuple[JsonObject, bool]:
        """Patch an object with the result of `change` on its present state; None from it means: already so.

        The write is refused by the server unless the object is still the one that `change` saw; then it is read and
        judged again. Returns the object and whether it was written. In a dry run the server decides and writes nothing.
        """
        query = [("dryRun", "All")] if dry_run else []
        for _ in range(_RACES):
            found = await self.get(ref)
            patch = change(found)
            if patch is None:
                return found, False
            precondition = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}}
            try:
                return await self._call(Call("patch", ref, subresource), patch | precondition, query), True
            except StaleWriteError:
                continue
        raise TransientError(f"{ref} kept changing while it was to be written")

    async def _call(self, call: Call, patch: JsonObject | None = None, query: Query = ()) -> JsonObject:
        path = f"{call.ref.path}/{call.subresource}" if call.subresource else call.ref.path
        if patch is None:
            return await self._ask(call, _Request("GET", path, query))
        query = [("fieldManager", FIELD_MANAGER), *query]
        # A kept connection is written to at once: the loop's timers first, which cut off a replica that stood still.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return await self._ask(call, _Request("PATCH", path, query, _WRITE, patch))

    async def _ask(self, call: Call, request: _Request) -> JsonObject:
        try:
            async with asyncio.timeout(self._timeout):
                status, body, headers = await self._send(request)
        except TimeoutError as error:
            raise TransientError(f"no answer within {self._timeout:g} s when asked to {call}") from error
        except (aiohttp.ClientError, ConfigException, OSError) as error:  # credentials are read again for each call
            raise TransientError(f"cannot reach the cluster to {call}: {unreached(error)}") from error
        if status not in _SUCCESS:
            raise error_of(call, status, body, headers)
        try:
            answer: JsonObject = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise TransientError(f"the answer is not JSON when asked to {call}") from error
        return answer

    async def _send(self, request: _Request) -> tuple[int, bytes, Any]:
        method, url, headers, body, post = await self._api.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query),
            header_params=dict(request.headers),
            body=request.body,
            auth_settings=["BearerToken"],
        )
        # Without this the generated client falls back to five minutes; asyncio.timeout also covers credential plugins.
        limit = aiohttp.ClientTimeout(total=self._timeout)
        sent = CIMultiDict(headers)  # a group is a header of its own, sent as often as there are groups
        sent.extend(self._impersonation)
        SECRETS.learn(sent.get("authorization", "").partition(" ")[2], "kubernetes")
        response = await self._api.call_api(method, url, sent, body, post, _request_timeout=limit)
        return response.status, await response.read(), response.headers


def _target(ref: ObjectRef, cluster: str, resolved_from: str = "") -> Target:
    return Target(
        backend="kubernetes",
        key=target_key(ref, cluster),
        kind=ref.kind,
        namespace=ref.namespace,
        name=ref.name,
        resolved_from=resolved_from,
        at="" if cluster == DEFAULT else cluster,
    )
