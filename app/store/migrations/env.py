"""Alembic's entry: runs the migrations on the connection that `app.store.migrations.migrate` hands over."""

from __future__ import annotations

from alembic import context

from app.store.db.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
