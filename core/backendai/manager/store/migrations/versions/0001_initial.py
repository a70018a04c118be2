"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
_ACTIVE = sa.text("state NOT IN ('TERMINATED', 'CANCELLED', 'FAILED')")


def upgrade() -> None:
    _people()
    _nodes()
    _sessions()
    _log()


def downgrade() -> None:
    for table in ("idempotency", "events", "kernels", "sessions", "agent_slots", "agents", "tokens", "users", "cluster"):
        op.drop_table(table)


def _people() -> None:
    op.create_table("cluster",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cluster")
    )
    op.create_table("users",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=254), server_default="", nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("gid", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name")
    )
    op.create_table("tokens",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("user_id", sa.String(length=26), nullable=True),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tokens_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash")
    )
    op.create_index("ix_tokens_user_id", "tokens", ["user_id"], unique=False)


def _nodes() -> None:
    op.create_table("agents",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("arch", sa.String(length=16), nullable=False),
        sa.Column("runtime", sa.String(length=64), nullable=False),
        sa.Column("engine", sa.String(length=128), nullable=False),
        sa.Column("info", sa.Text(), nullable=False),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("last_seen", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agents"),
        sa.UniqueConstraint("name", name="uq_agents_name")
    )
    op.create_table("agent_slots",
        sa.Column("agent_id", sa.String(length=26), nullable=False),
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_agent_slots_agent_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("agent_id", "slot", name="pk_agent_slots")
    )


def _sessions() -> None:
    op.create_table("sessions",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("owner_id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_since", sa.Float(), nullable=False),
        sa.Column("deadline", sa.Float(), nullable=True),
        sa.Column("stop", sa.Boolean(), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.String(length=26), nullable=True),
        sa.Column("image", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_sessions_owner_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions")
    )
    op.create_index("ix_sessions_active", "sessions", ["state", "id"], unique=False, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)
    op.create_index("ix_sessions_owner_id_id", "sessions", ["owner_id", "id"], unique=False)
    op.create_index("uq_sessions_active_name", "sessions", ["owner_id", "name"], unique=True,
                    sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)
    op.create_table("kernels",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("session_id", sa.String(length=26), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.String(length=26), nullable=True),
        sa.Column("holds", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("container", sa.String(length=128), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_kernels_session_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_kernels")
    )
    op.create_index("ix_kernels_holding", "kernels", ["agent_id"], unique=False,
                    sqlite_where=sa.text("holds = 1"), postgresql_where=sa.text("holds"))
    op.create_index("ix_kernels_session_id", "kernels", ["session_id"], unique=False)


def _log() -> None:
    op.create_table("events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("owner_id", sa.String(length=26), nullable=True),
        sa.Column("subject", sa.String(length=26), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events")
    )
    op.create_index("ix_events_subject", "events", ["subject"], unique=False)
    op.create_table("idempotency",
        sa.Column("user_id", sa.String(length=26), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=26), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "key", name="pk_idempotency")
    )
