"""The tables. SQLite and PostgreSQL both hold them; Alembic makes and changes them.

Times are seconds since the epoch (float), ids are text, structured values are JSON text that msgspec writes and reads.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, text

metadata = MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s",
})
_ACTIVE = text("state NOT IN ('TERMINATED', 'CANCELLED', 'FAILED')")
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself there

cluster = Table(  # one row: who we are
    "cluster", metadata,
    Column("id", String(26), primary_key=True),
    Column("created_at", Float, nullable=False),
)

users = Table(
    "users", metadata,
    Column("id", String(26), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("email", String(254), nullable=False, server_default=""),
    Column("role", String(16), nullable=False),  # superadmin, user
    Column("active", Boolean, nullable=False),
    Column("uid", Integer, nullable=False),  # inside containers
    Column("gid", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

tokens = Table(
    "tokens", metadata,
    Column("id", String(26), primary_key=True),
    Column("user_id", String(26), ForeignKey("users.id", ondelete="CASCADE"), nullable=True),  # NULL: an agent's
    Column("name", String(64), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=True),
    Column("agent_id", String(26), nullable=True),  # which agent uses it, once one does
    Index(None, "user_id"),
)

agents = Table(
    "agents", metadata,
    Column("id", String(26), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("version", String(32), nullable=False),
    Column("arch", String(16), nullable=False),
    Column("runtime", String(64), nullable=False),
    Column("engine", String(128), nullable=False),
    Column("info", Text, nullable=False),  # JSON: features, missing, limits, default_image, plugins
    Column("connected", Boolean, nullable=False),
    Column("why", Text, nullable=False),  # empty when healthy
    Column("last_seen", Float, nullable=False),
    Column("created_at", Float, nullable=False),
)

agent_slots = Table(  # the ledger: used may never exceed capacity by a placement
    "agent_slots", metadata,
    Column("agent_id", String(26), ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True),
    Column("slot", String(64), primary_key=True),
    Column("capacity", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
)

sessions = Table(
    "sessions", metadata,
    Column("id", String(26), primary_key=True),
    Column("owner_id", String(26), ForeignKey("users.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("type", String(16), nullable=False),
    Column("spec", Text, nullable=False),  # JSON of model.session.SessionSpec
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_since", Float, nullable=False),
    Column("deadline", Float, nullable=True),  # when the present state has lasted too long
    Column("stop", Boolean, nullable=False),  # intent: its owner wants it to end
    Column("result", String(16), nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("reason", Text, nullable=False),
    Column("hold", Text, nullable=False),
    Column("agent_id", String(26), nullable=True),  # of its main kernel
    Column("image", Text, nullable=True),  # as it was resolved
    Column("created_at", Float, nullable=False),
    Column("started_at", Float, nullable=True),
    Column("ended_at", Float, nullable=True),
    Index("uq_sessions_active_name", "owner_id", "name", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("ix_sessions_owner_id_id", "owner_id", "id"),
    Index("ix_sessions_active", "state", "id", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
)

kernels = Table(  # one container of a session
    "kernels", metadata,
    Column("id", String(26), primary_key=True),
    Column("session_id", String(26), ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("role", String(32), nullable=False),
    Column("idx", Integer, nullable=False),
    Column("slots", Text, nullable=False),  # JSON, internal units
    Column("agent_id", String(26), nullable=True),
    Column("holds", Boolean, nullable=False),  # its slots are counted in the ledger
    Column("state", String(16), nullable=False),  # wire.link.KernelState, empty before it was placed
    Column("exit_code", Integer, nullable=True),
    Column("container", String(128), nullable=False, server_default=""),
    Index(None, "session_id"),
    Index("ix_kernels_holding", "agent_id", sqlite_where=text("holds = 1"), postgresql_where=text("holds")),
)

events = Table(
    "events", metadata,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("type", String(32), nullable=False),
    Column("owner_id", String(26), nullable=True),  # who may see it; NULL: administrators
    Column("subject", String(26), nullable=False),  # id of the session, agent, user or token
    Column("data", Text, nullable=False),  # JSON
    Index(None, "subject"),
)

idempotency = Table(
    "idempotency", metadata,
    Column("user_id", String(26), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("request", String(64), nullable=False),  # SHA-256 of method, path and body
    Column("subject", String(26), nullable=False),  # what it made
    Column("at", Float, nullable=False),
)
