"""The receivers that ours is measured beside: what the stack costs without what makes a notification safe.

Each is an application factory, to be served as `uvicorn --factory tools.bench.receivers:validating`. The model is
written as one would who has Alertmanager's documentation and no more.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

PATH = "/webhooks/alertmanager"
_COLUMNS = "(received REAL, fingerprint TEXT, status TEXT, alertname TEXT, alert TEXT)"


class Alert(BaseModel):
    """One alert."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: datetime  # noqa: N815 - Alertmanager's name
    endsAt: datetime  # noqa: N815
    generatorURL: str = ""  # noqa: N815
    fingerprint: str


class Notification(BaseModel):
    """Version 4 of the webhook's payload."""

    version: Literal["4"]
    groupKey: str  # noqa: N815
    truncatedAlerts: int = 0  # noqa: N815
    status: Literal["firing", "resolved"]
    receiver: str
    groupLabels: dict[str, str]  # noqa: N815
    commonLabels: dict[str, str]  # noqa: N815
    commonAnnotations: dict[str, str]  # noqa: N815
    externalURL: str  # noqa: N815
    alerts: list[Alert]


def _rows(given: Notification) -> list[tuple[float, str, str, str, str]]:
    now = time.time()
    return [
        (now, one.fingerprint, one.status, one.labels.get("alertname", ""), one.model_dump_json())
        for one in given.alerts
    ]


def bare() -> Starlette:
    """(a) The limit of the stack: the body is read and forgotten."""

    async def receive(request: Request) -> JSONResponse:
        await request.body()
        return JSONResponse({})

    return Starlette(routes=[Route(PATH, receive, methods=["POST"])])


def validating() -> FastAPI:
    """(b) Validated by a model, and nothing kept."""
    app = FastAPI()

    @app.post(PATH)
    async def receive(given: Notification) -> dict[str, int]:
        return {"alerts": len(given.alerts)}

    return app


def sqlite() -> FastAPI:
    """(c) As (b), and one durable commit with a row for each alert before the answer."""
    app, thread = FastAPI(), ThreadPoolExecutor(1)
    store = sqlite3.connect(os.environ["BENCH_STORE"], isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", f"CREATE TABLE alert {_COLUMNS}"):
        store.execute(statement)

    def commit(rows: list[tuple[float, str, str, str, str]]) -> None:
        store.execute("BEGIN IMMEDIATE")
        store.executemany("INSERT INTO alert VALUES (?, ?, ?, ?, ?)", rows)
        store.execute("COMMIT")

    @app.post(PATH)
    async def receive(given: Notification) -> dict[str, int]:
        await asyncio.get_running_loop().run_in_executor(thread, commit, _rows(given))
        return {"alerts": len(given.alerts)}

    return app


def postgresql() -> FastAPI:
    """(d) The same with PostgreSQL, over eight connections."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncConnectionPool(os.environ["BENCH_STORE"], min_size=8, max_size=8, open=False) as pool:
            async with pool.connection() as connection:
                columns = _COLUMNS.replace("REAL", "double precision")
                await connection.execute(f"CREATE TABLE IF NOT EXISTS alert {columns}")
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post(PATH)
    async def receive(given: Notification) -> dict[str, int]:
        async with app.state.pool.connection() as connection, connection.cursor() as cursor:
            await cursor.executemany("INSERT INTO alert VALUES (%s, %s, %s, %s, %s)", _rows(given))
        return {"alerts": len(given.alerts)}

    return app
