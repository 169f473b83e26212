"""The HTTP edge in this process, on a store of its own: requests without sockets, and runs put into the ledger."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from app.api.app import create_app
from app.api.auth import Authenticator, Role
from app.api.services import Limits, Services
from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.scope import Scope
from app.catalog.loader import load
from app.catalog.reload import CatalogHolder
from app.domain.episodes import Episode
from app.domain.findings import Report
from app.domain.ids import new_id
from app.domain.remediation import Remediation
from app.domain.states import RunState
from app.engine.context import EngineContext, Policy
from app.engine.stages.intake import pending_run
from app.settings import Token
from app.store.db.database import Database
from app.store.db.schema import run as run_table
from app.store.ledger import episodes, runs
from app.store.ledger.inbox import Inbox
from app.store.ledger.runs import Run
from app.store.migrations.migrate import migrate
from app.telemetry.metrics import Metrics

T = TypeVar("T")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CATALOG = """\
remediations:
  - name: restart-api
    summary: Restart the API.
    matchers: [alertname="Down"]
    target: {kubernetes: {kind: Deployment, namespace: shop, name: api}}
    steps: [{action: kubernetes.rollout_restart}]
"""
REMEDIATION = Remediation.model_validate(
    {
        "name": "restart-api",
        "summary": "Restart the API.",
        "matchers": ['alertname="Down"'],
        "steps": [{"action": "kubernetes.rollout_restart"}],
    }
)


TOKENS = [Token(name=f"the-{role}", role=role.value, value=SecretStr(f"secret-of-{role}")) for role in Role]


def bearer(secret: str) -> dict[str, str]:
    """The header that Alertmanager sends for `authorization.credentials`."""
    return {"authorization": f"Bearer {secret}"}


class Edge:
    """The application with its store, driven from plain tests; one event loop for all of its requests."""

    def __init__(self, folder: Path, template: Path | None = None, **settings: Any) -> None:
        self.now = NOW
        self.problems: list[str] = []
        self.reports: dict[str, Report] = {}
        self.catalog_file = folder / "catalog.yaml"
        self.catalog_file.write_text(CATALOG, encoding="utf-8")
        file = folder / "store.db"
        if template is not None:
            shutil.copy(template, file)
        self.metrics = Metrics("test")
        self.database = Database(f"sqlite:///{file}")
        self.work = asyncio.Event()
        self._runner = asyncio.Runner()
        self.app = self._application(**settings)
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app), base_url="http://localhost", timeout=30
        )
        self._committer: asyncio.Task[None] | None = None

    def _application(
        self,
        *,
        tokens: Sequence[Token] = (),
        limits: Limits | None = None,
        database: Database | None = None,
        channel: str | None = None,
    ) -> FastAPI:
        self.database = database or self.database
        self.inbox = Inbox(self.database)
        catalog = CatalogHolder([self.catalog_file], load([self.catalog_file], NOW), lambda *_: None)
        self.services = Services(
            database=self.database,
            inbox=self.inbox,
            catalog=catalog,
            metrics=self.metrics,
            auth=Authenticator(tokens),
            clock=lambda: self.now,
            ready=self._ready,
            work=self.work,
            parts=self._parts(catalog, Policy(channel=channel)),
            preflight=self.reports.get,
            limits=limits or Limits(),
        )
        self.parts = self.services.parts
        return create_app(self.services)

    def _parts(self, catalog: CatalogHolder, policy: Policy) -> EngineContext:
        clients = Clients(Connections(), Scope())
        now = lambda: self.now  # noqa: E731 - the edge's clock
        return EngineContext(
            self.database, lambda: catalog.current, clients, self.metrics, policy, now, "edge", work=self.work
        )

    async def _ready(self) -> list[str]:
        return self.problems

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the edge's event loop."""
        return self._runner.run(coroutine)

    def start(self) -> None:
        """Commit what requests bring, from now on."""

        async def begin() -> None:
            self._committer = asyncio.create_task(self.inbox.commit_forever())

        self.run(begin())

    def close(self) -> None:
        """End everything."""
        self.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
        await self._client.aclose()
        await self.database.close()

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request; arguments as of httpx."""
        return self.run(self._client.request(method, path, **arguments))

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        """Send a GET."""
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """Send a POST."""
        return self.request("POST", path, **arguments)

    def notify(self, body: bytes, **headers: str) -> httpx.Response:
        """Post a body to the webhook as Alertmanager does."""
        return self.post(
            "/webhooks/alertmanager", content=body, headers={"content-type": "application/json", **headers}
        )

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric now."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def add_run(self, state: RunState = RunState.PENDING, *, after: timedelta = timedelta(), **columns: Any) -> Run:
        """Put a run into the ledger that was made at `NOW + after`, for an alert of its own."""
        labels = {"alertname": "Down", "namespace": "shop", **columns.pop("labels", {})}
        at = NOW + after
        trigger = make_episode(labels, at)
        remediation = REMEDIATION.model_copy(update={"name": columns.pop("remediation", REMEDIATION.name)})
        made = pending_run(remediation, "d" * 64, trigger, at)
        values = {"state": state, "active": not state.is_final, **columns}

        async def write() -> None:
            async with self.database.write() as tx:
                await episodes.create(tx, [replace(trigger, matched=frozenset({remediation.name}))])
                await runs.create(tx, [made])
                await episodes.link(tx, [(made.id, trigger.id)])
                await tx.execute(run_table.update().where(run_table.c.id == made.id).values(values))

        self.run(write())
        return made

    def stored(self, run_id: str) -> Run | None:
        """A run as the ledger has it now."""

        async def read() -> Run | None:
            async with self.database.read() as tx:
                return await runs.get(tx, run_id)

        return self.run(read())


def make_episode(labels: dict[str, str], at: datetime) -> Episode:
    """An open episode of an alert that began at `at`."""
    fingerprint = new_id(at)[-12:]
    return Episode(
        id=new_id(at),
        identity=fingerprint,
        fingerprint=fingerprint,
        labels=labels,
        annotations={"summary": "The API is down."},
        generator_url="http://prometheus.test/graph",
        starts_at=at,
        first_seen_at=at,
        last_seen_at=at,
        firing={fingerprint: at},
    )


def make_store(file: Path) -> None:
    """An empty store with the schema of this release."""

    async def make() -> None:
        database = Database(f"sqlite:///{file}")
        await migrate(database)
        await database.close()

    asyncio.run(make())


StartEdge = Callable[..., Edge]
