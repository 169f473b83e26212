"""The composition root: builds the parts from the settings, runs server and engine, and ends them in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from app import __version__, certificates
from app.api.app import create_app
from app.api.auth import Authenticator
from app.api.services import Limits, Services
from app.backends.actions import actions
from app.backends.checks import checks
from app.backends.instances import Clients
from app.backends.messengers import channels
from app.backends.messengers import section as channel_section
from app.backends.registry import backends
from app.backends.scope import Scope
from app.catalog.catalog import Catalog
from app.catalog.loader import load
from app.catalog.references import Installation
from app.catalog.reload import CatalogHolder
from app.domain.episodes import EpisodeRules
from app.domain.errors import AppError, ConfigError
from app.domain.remediation import Mode
from app.door import Door, open_files
from app.engine.background.housekeeping import keep_house_forever
from app.engine.background.lookup import lookup_forever
from app.engine.background.outbox import send_forever
from app.engine.background.preflight import Preflight
from app.engine.clock import Timekeeper
from app.engine.context import EngineContext, Policy
from app.engine.outcomes.effectiveness import judge_forever
from app.engine.stages.intake import take_in_forever
from app.engine.worker import Worker
from app.settings import Settings
from app.store.audit import seals
from app.store.db import durability
from app.store.db.database import Database
from app.store.db.notify import announce_reload, listen_forever, remind_forever
from app.store.db.url import store_url
from app.store.ledger import leases
from app.store.ledger.inbox import Inbox
from app.store.migrations.migrate import migrate
from app.telemetry.metrics import Metrics

_LOOK_AGAIN_SECONDS = 10.0  # should a reminder ever be missed
_MOST_WARNINGS = 100  # that are logged for one catalog; `remediator check` shows all
log = structlog.get_logger()


def utc_now() -> datetime:
    """The clock of a real process."""
    return datetime.now(UTC)


def _scope_of(settings: Settings) -> Scope:
    """Return the configured scope, without the service's own parts: each backend knows them."""
    url, connections = str(store_url(settings.store_url)), settings.connections
    blocks = {
        name: backend.protect(settings.scope.of(name), connections.of(name), url)
        for name, backend in backends().items()
        if backend.Scope is not None
    }
    return settings.scope.model_copy(update=blocks)


def policy_of(settings: Settings) -> Policy:
    """The settings that decisions depend on; raises ConfigError where they contradict each other."""
    episodes = settings.episodes
    if settings.channel is not None and settings.channel not in channels(settings.connections):
        known = ", ".join(sorted(channels(settings.connections))) or "none"
        place = f"connections.{channel_section()}"
        raise ConfigError(f"channel: {place} has no {settings.channel!r} (configured: {known})")
    return Policy(
        ceiling=settings.mode,
        scope=_scope_of(settings),
        rate=settings.rate,
        episodes=EpisodeRules(episodes.ignored_labels, episodes.late_within, episodes.restart_after),
        concurrency=settings.concurrency,
        storm=settings.storm,
        storm_pause=settings.storm_pause,
        channel=settings.channel,
        external_url=settings.external_url.rstrip("/"),
        approval_timeout=settings.approval_timeout,
        tell_waiting=settings.tell_waiting,
        stability=settings.stability,
        plan_timeout=settings.plan_timeout,
        recheck=settings.recheck,
        lease=settings.lease,
        workers=settings.workers,
    )


def audit_key_of(settings: Settings) -> bytes:
    """The key of the audit's hashes; empty where none is configured."""
    key = settings.audit.key
    if key is None:
        return b""
    secret = key.read("audit.key.file").strip()
    if not secret:
        raise ConfigError("audit.key is empty")
    return secret.encode()


def read_files(settings: Settings) -> None:
    """Read the files that the start needs besides the catalog; raises ConfigError where `serve` would."""
    Authenticator(settings.auth.tokens).check()
    audit_key_of(settings)
    certificates.server_options(settings.tls)


def installation_of(settings: Settings) -> Installation:
    """The configuration to compare a catalog with."""
    return Installation(
        settings.connections, policy_of(settings).scope, settings.channel, settings.episodes.ignored_labels
    )


def parts_of(
    settings: Settings, catalog: CatalogHolder, metrics: Metrics, database: Database, clock: Callable[[], datetime]
) -> EngineContext:
    """The engine's parts for this process."""
    policy = policy_of(settings)
    return EngineContext(
        database=database,
        catalog=lambda: catalog.current,
        clients=Clients(settings.connections, policy.scope),
        metrics=metrics,
        policy=policy,
        clock=clock,
        look_again=_LOOK_AGAIN_SECONDS,
        owner=f"{socket.gethostname()[:40]}-{os.getpid()}-{os.urandom(4).hex()}",
    )


class Service:
    """One replica: everything that runs between start and SIGTERM."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # once it runs
        self.metrics = Metrics(__version__)
        catalog = load(settings.catalog, utc_now())
        self.catalog = CatalogHolder(settings.catalog, catalog, self._reloaded, installation_of(settings).warnings)
        self._reloaded(successful=True, catalog=catalog, error=None)
        self.auth = Authenticator(settings.auth.tokens)
        self.auth.check()
        self.database = Database(settings.store_url, self.metrics.store_errors.inc, audit_key_of(settings))
        self.inbox = Inbox(self.database)
        self.clock = Timekeeper(self.database, utc_now, settings.lease)
        parts = parts_of(settings, self.catalog, self.metrics, self.database, self.clock)
        self.parts = replace(parts, timekeeper=self.clock)
        self.worker = Worker(self.parts)
        self.preflight = Preflight(self.parts)
        self.stopping = asyncio.Event()

    def _reloaded(self, successful: bool, catalog: Catalog, error: ConfigError | None) -> None:  # noqa: FBT001 - OnReload
        metrics = self.metrics
        metrics.catalog_reload_successful.set(successful)
        if error is not None:
            log.error(
                "the catalog was refused; the previous one stays", problems=[str(one) for one in error.diagnostics]
            )
            return
        metrics.catalog_reload_timestamp.set(catalog.loaded_at.timestamp())
        for mode in Mode:
            count = sum(remediation.mode is mode for remediation in catalog.remediations.values())
            metrics.catalog_remediations.labels(mode).set(count)
        metrics.initialise(catalog.remediations, actions(), checks())
        log.info("catalog loaded", remediations=len(catalog), digest=catalog.short_digest)
        warnings = self.catalog.warnings
        for warning in warnings[:_MOST_WARNINGS]:
            log.warning("catalog", at=str(warning))
        if len(warnings) > _MOST_WARNINGS:
            log.warning("catalog", more=len(warnings) - _MOST_WARNINGS)
        if self._loop is not None:  # a reload is told of from a thread
            self._loop.call_soon_threadsafe(self._load_clients, catalog)

    def _load_clients(self, catalog: Catalog) -> None:
        targets = (one.target for one in catalog.remediations.values())
        self.start(self.parts.clients.load({one.backend for one in targets if one is not None}), "clients")

    def application(self) -> FastAPI:
        """The HTTP edge over this replica's parts."""
        services = Services(
            database=self.database,
            inbox=self.inbox,
            catalog=self.catalog,
            metrics=self.metrics,
            auth=self.auth,
            clock=self.clock,
            ready=self.problems,
            work=self.parts.work,
            parts=self.parts,
            preflight=self.preflight.report,
            stopping=self.stopping,
            limits=Limits(
                max_body_bytes=self.settings.max_body_bytes,
                max_alerts=self.settings.max_alerts,
                max_requests=self.settings.max_requests,
            ),
        )
        return create_app(services)

    async def open(self) -> None:
        """Take the store and start the loops; raises AppError, and has let go of everything then."""
        try:
            before, after = await self._take_store()
            await self.clock.start()
        except AppError:
            await self.database.close()
            raise
        if before != after:
            log.info("store migrated", before=before, after=after)
        self.start(self.inbox.commit_forever(), "inbox")
        self.start(take_in_forever(self.parts, self.inbox), "take-in")
        self.start(remind_forever(self.database, self._wake), "reminder")
        self.start(self.worker.work_forever(), "worker")
        self.start(self.worker.renew_forever(), "leases")
        self.start(send_forever(self.parts), "outbox")
        self.start(judge_forever(self.parts), "judging")
        if self.settings.preflight:
            self.start(self.preflight.look_forever(self.settings.preflight), "preflight")
        self.start(keep_house_forever(self.parts, self.settings.retention), "housekeeping")
        self.start(self.catalog.watch(self.clock), "catalog")
        if self.settings.lookup:
            self.start(lookup_forever(self.parts, self.inbox, self.settings.lookup), "look-up")
        self.start(self.clock.keep_forever(), "clock")
        self.start(self.database.move_log_forever(), "log")
        self.start(listen_forever(self.database, self.parts.owner, self._wake, self._reload_soon), "wake-ups")
        self._loop = asyncio.get_running_loop()
        self._load_clients(self.catalog.current)
        self._loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _wake(self) -> None:
        self.inbox.recorded.set()
        self.parts.work.set()
        self.parts.outbox.set()

    async def _take_store(self) -> tuple[str | None, str | None]:
        self.database.claim_file()
        revisions = await migrate(self.database)
        await durability.tell(self.database)
        async with self.database.write(lock="seal") as tx:
            await seals.after_restore(tx)
        if self.database.is_sqlite:
            # The file lock says that we are the only replica, so every lease is a dead process's.
            async with self.database.write() as tx:
                await leases.release_all(tx)
        return revisions

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        """Run a loop beside the others, to be ended with them."""
        self._tasks.append(asyncio.create_task(coroutine, name=name))

    def _reload_soon(self) -> None:
        self.start(self._reload(), "reload")

    async def _reload(self) -> None:
        await self.catalog.reload(self.clock())

    def _hung_up(self) -> None:
        self._reload_soon()
        self.start(announce_reload(self.database, self.parts.owner), "reload of others")

    async def problems(self) -> list[str]:
        """Return the causes that keep this replica from its work; empty when it is ready."""
        found = [f"{task.get_name()} has stopped" for task in self._tasks if task.done() and _failed(task)]
        try:
            async with asyncio.timeout(2):
                await self.database.probe()
        except (AppError, TimeoutError):
            found.append("the store is not available")
        return found

    async def close(self) -> None:
        """Stop taking work, let running steps finish, give the leases back, and only then let go of the store."""
        loops = [task for task in self._tasks if task.get_name() not in {"inbox", "leases"}]
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self.worker.drain(self.settings.drain / timedelta(seconds=1))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.parts.clients.close()
        await self.database.close()
        log.info("stopped")


def _failed(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is not None


class _Server(uvicorn.Server):
    """Opens the service before it listens and closes it after its last answer; an error then has its reason."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._door = Door(open_files(), lambda reason: service.metrics.connections_ended.labels(reason).inc())

    async def main_loop(self) -> None:
        """Wait for the end; uvicorn's own loop looks ten times a second whether it has come."""
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._ended.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal asks for the end."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises AppError where uvicorn would log a traceback and exit."""
        await self._service.open()
        context = self.config.ssl
        self.config.http_protocol_class = partial(self._door.let_in, context)  # type: ignore[assignment]
        self.config.backlog = self._door.backlog
        self.config.ssl = None  # the door does it, so that it sees a connection before its handshake
        try:
            await super().startup(sockets)
        except SystemExit as error:
            await self._service.close()
            address = self._service.settings.listen
            raise ConfigError(f"could not start serving on {address}; the log above says why") from error
        settings = self._service.settings
        if context is not None:
            self._service.start(certificates.follow(context, settings.tls), "certificates")
        log.info("serving", listen=settings.listen, mode=settings.mode.value, version=__version__)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer all open requests, then end the engine."""
        self._service.stopping.set()
        await super().shutdown(sockets)
        await self._service.close()


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; raises AppError when it cannot start."""
    service = Service(settings)
    config = uvicorn.Config(
        service.application(),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,  # app.api.edge adds it; uvicorn would wake every second to have the next one ready
        ws="none",
        timeout_graceful_shutdown=5,
        lifespan="off",
        **certificates.server_options(settings.tls),
    )
    gc.freeze()  # loaded objects stay; looking for garbage in them would hold up requests again and again
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)  # uvicorn has its own meanwhile, and raises the signal again when all has ended
    _Server(config, service).run()
