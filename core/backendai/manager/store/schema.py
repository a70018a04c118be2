"""The tables. SQLite and PostgreSQL both hold them; Alembic makes and changes them.

Times are seconds since the epoch (float), ids are text, structured values are JSON text that msgspec writes and reads.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

DEFAULT = "default"  # name of the domain, the project and the resource group that are there from the beginning, and id of two of them
PROJECT = "default-project"  # the project's id: ids of domains, projects and users are used side by side, so each is given once

metadata = MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s",
})
_ACTIVE = text("state NOT IN ('TERMINATED', 'CANCELLED', 'FAILED')")
_UNCOUNTED = "(holds AND counted_at IS NULL) OR (NOT holds AND counted_at IS NOT NULL)"
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself there

cluster = Table(  # one row: who we are
    "cluster", metadata,
    Column("id", String(26), primary_key=True),
    Column("created_at", Float, nullable=False),
)

domains = Table(  # tenants
    "domains", metadata,
    Column("id", String(26), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("active", Boolean, nullable=False),
    Column("weight", Float, nullable=False, server_default="1"),  # in fair sharing
    Column("borrow", Boolean, nullable=False, server_default=text("false")),  # projects may use what the others leave unused
    Column("created_at", Float, nullable=False),
)

projects = Table(
    "projects", metadata,
    Column("id", String(26), primary_key=True),
    Column("domain_id", String(26), ForeignKey("domains.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("weight", Float, nullable=False, server_default="1"),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("domain_id", "name"),
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
    Column("domain_id", String(26), nullable=False, server_default=DEFAULT),
    Column("project_id", String(26), nullable=False, server_default=PROJECT),  # where sessions go that name none
)

roles = Table(  # what somebody is in a domain or a project
    "roles", metadata,
    Column("user_id", String(26), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("scope_id", String(26), primary_key=True),  # id of the domain or the project
    Column("scope", String(8), nullable=False),  # domain, project
    Column("role", String(8), nullable=False),  # admin, member, viewer
    Index(None, "scope_id"),
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
    Column("scopes", Text, nullable=False, server_default="[]"),  # JSON, what it may be used for; empty: everything that its user may
    Index(None, "user_id"),
)

groups = Table(  # resource groups
    "groups", metadata,
    Column("id", String(26), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("scheduler", String(64), nullable=False, server_default=""),  # name of a plugin; empty: the manager's setting
    Column("selector", String(64), nullable=False, server_default=""),
    Column("options", Text, nullable=False, server_default="{}"),  # JSON of model.group.GroupOptions
    Column("total", Text, nullable=False, server_default="{}"),  # JSON: capacity of its agents by slot, as usage is held against it
    Column("created_at", Float, nullable=False),
)

group_access = Table(  # who may use which group
    "group_access", metadata,
    Column("group_id", String(26), ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("scope_id", String(26), primary_key=True),  # id of a domain, a project or a user; "*": everyone
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
    Column("group_id", String(26), nullable=False, server_default=DEFAULT),
    Column("cordoned", Boolean, nullable=False, server_default=text("false")),  # nothing new is placed here
    Column("draining", Boolean, nullable=False, server_default=text("false")),  # and what can move is moved
    Column("labels", Text, nullable=False, server_default="{}"),  # JSON: its own with the overrides; ``zone`` is its failure domain
    Column("overrides", Text, nullable=False, server_default="{}"),  # JSON: labels as the operator wants them; null hides one
    Column("address", String(64), nullable=False, server_default=""),  # by which other nodes reach it
    Column("devices", Text, nullable=False, server_default="{}"),  # JSON: fraction slot to device to amount
)

slot_types = Table(  # as accelerator plugins declared them
    "slot_types", metadata,
    Column("name", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("quantum", BigInteger, nullable=False),
    Column("unit", String(32), nullable=False),
    Column("title", String(64), nullable=False),
)

presets = Table(  # named bundles of slots
    "presets", metadata,
    Column("id", String(26), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("slots", Text, nullable=False),  # JSON, internal units
    Column("group_id", String(26), ForeignKey("groups.id", ondelete="CASCADE"), nullable=True),  # NULL: every group
    Column("about", Text, nullable=False, server_default=""),
)

quotas = Table(  # used may never exceed limit by a placement, as in agent_slots
    "quotas", metadata,
    Column("id", String(26), primary_key=True),
    Column("scope", String(8), nullable=False),  # domain, project, user
    Column("scope_id", String(26), nullable=False),
    Column("group_id", String(26), nullable=False, server_default=""),  # empty: all groups together
    Column("what", String(64), nullable=False),  # a slot, sessions, waiting, kernels (of one session), lifetime (seconds)
    Column("limit", BigInteger, nullable=False),  # internal units
    Column("used", BigInteger, nullable=False, server_default="0"),  # by sessions that hold; for slots and sessions only
    UniqueConstraint("scope_id", "group_id", "what"),
)

bookings = Table(  # advance reservations
    "bookings", metadata,
    Column("id", String(26), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("group_id", String(26), ForeignKey("groups.id", ondelete="CASCADE"), nullable=False),
    Column("scope_id", String(26), nullable=False),  # whose sessions may use it: a domain, a project or a user
    Column("agents", Text, nullable=False),  # JSON: agent to slots, internal units
    Column("begins", Float, nullable=False),
    Column("ends", Float, nullable=False),
    Column("made_by", String(26), nullable=False),
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
    Column("stop_why", Text, nullable=False, server_default=""),  # a rule's reason, where it is not the owner who wants it
    Column("result", String(16), nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("reason", Text, nullable=False),
    Column("hold", Text, nullable=False),
    Column("agent_id", String(26), nullable=True),  # of its main kernel
    Column("image", Text, nullable=True),  # as it was resolved
    Column("created_at", Float, nullable=False),
    Column("started_at", Float, nullable=True),
    Column("ended_at", Float, nullable=True),
    Column("project_id", String(26), nullable=False, server_default=PROJECT),
    Column("domain_id", String(26), nullable=False, server_default=DEFAULT),
    Column("group_id", String(26), nullable=False, server_default=DEFAULT),
    Column("attempt", Integer, nullable=False, server_default="1"),  # of a batch session that is tried again
    Column("not_before", Float, nullable=True),  # it waits until then: as asked, or between two attempts
    Column("array_id", String(26), nullable=True),  # shared by the sessions of an array
    Column("array_index", Integer, nullable=True),
    Column("claim", Text, nullable=False, server_default=""),  # JSON: agents kept for its kernels while others make room
    Column("evict", String(16), nullable=False, server_default=""),  # intent: requeue or end, to make room
    Column("expires_at", Float, nullable=True),  # when a rule of its group will end it
    Column("expires_why", Text, nullable=False, server_default=""),
    Column("active_at", Float, nullable=True),  # when somebody was last seen using it
    Column("net", Text, nullable=False, server_default=""),  # JSON of model.network.NetPlan, for kernels on several agents
    Column("grace_s", Float, nullable=True),  # from SIGTERM to SIGKILL, where a stop wants another than was asked for
    Column("retried", Integer, nullable=False, server_default="0"),  # how often it was tried again because it had failed
    Index("uq_sessions_active_name", "owner_id", "name", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    Index("ix_sessions_owner_id_id", "owner_id", "id"),
    Index("ix_sessions_active", "state", "id", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
)

dependencies = Table(  # who waits for whose end
    "dependencies", metadata,
    Column("session_id", String(26), ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("on_id", String(26), primary_key=True),  # no foreign key: what was forgotten has ended
    Column("kind", String(12), nullable=False),  # afterok, afterany, afternotok
    Column("met", Boolean, nullable=False),
    Index(None, "on_id"),
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
    Column("units", Text, nullable=False, server_default="{}"),  # JSON: fraction slot to device to amount
    Column("counted_at", Float, nullable=True),  # until when what it holds is in ``usage``; NULL when it holds nothing
    Column("attempt", Integer, nullable=False, server_default="1"),  # of its session; those of earlier ones have ended
    Index(None, "session_id"),
    Index("ix_kernels_uncounted", "counted_at", sqlite_where=text(_UNCOUNTED), postgresql_where=text(_UNCOUNTED)),
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

usage = Table(  # what was held, by day (UTC)
    "usage", metadata,
    Column("day", String(10), primary_key=True),  # 2026-11-26
    Column("group_id", String(26), primary_key=True),
    Column("project_id", String(26), primary_key=True),
    Column("user_id", String(26), primary_key=True),
    Column("slot", String(64), primary_key=True),  # a slot's name, or "sessions"
    Column("domain_id", String(26), nullable=False),
    Column("amount_s", Float, nullable=False),  # internal units times seconds
)

shares = Table(  # fair sharing's memory: usage that halves every half-life
    "shares", metadata,
    Column("group_id", String(26), primary_key=True),
    Column("account", String(64), primary_key=True),  # DOMAIN, PROJECT or PROJECT/USER (ids)
    Column("usage", Float, nullable=False),  # seconds of the whole group's capacity
    Column("at", Float, nullable=False),  # when it was that much
)

decisions = Table(  # what was decided from what, so that it can be shown again
    "decisions", metadata,
    Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("group_id", String(26), nullable=False),
    Column("snapshot", String(64), nullable=False),  # SHA-256 of what it was made from
    Column("scheduler", String(128), nullable=False),  # plugin and its version
    Column("selector", String(128), nullable=False),
    Column("placed", Text, nullable=False),  # JSON: session to agents
    Column("frozen", LargeBinary, nullable=True),  # the snapshot itself, compressed; the oldest are dropped first
    Index(None, "group_id", "at"),
)
