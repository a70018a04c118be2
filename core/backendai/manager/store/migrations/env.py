"""Alembic's entry: run the scripts on the connection that we were handed."""

from __future__ import annotations

from alembic import context
from backendai.manager.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
