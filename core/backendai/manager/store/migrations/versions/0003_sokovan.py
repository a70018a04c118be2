"""Domains, projects and resource groups; quotas, bookings, dependencies, usage and decisions."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
DEFAULT = "default"
PROJECT = "default-project"
_FALSE = sa.text("false")
_UNCOUNTED = "(holds AND counted_at IS NULL) OR (NOT holds AND counted_at IS NOT NULL)"


def upgrade() -> None:
    _owners()
    _groups()
    _limits()
    _sessions()
    _records()
    found()


def found() -> None:
    """Make the domain, the project and the resource group that are there from the beginning; everybody is in them."""
    now = time.time()
    op.bulk_insert(sa.table("domains", *map(sa.column, ("id", "name", "active", "created_at"))),
                   [{"id": DEFAULT, "name": DEFAULT, "active": True, "created_at": now}])
    op.bulk_insert(sa.table("projects", *map(sa.column, ("id", "domain_id", "name", "active", "created_at"))),
                   [{"id": PROJECT, "domain_id": DEFAULT, "name": DEFAULT, "active": True, "created_at": now}])
    op.bulk_insert(sa.table("groups", *map(sa.column, ("id", "name", "created_at"))),
                   [{"id": DEFAULT, "name": DEFAULT, "created_at": now}])
    op.bulk_insert(sa.table("group_access", *map(sa.column, ("group_id", "scope_id"))), [{"group_id": DEFAULT, "scope_id": "*"}])
    op.execute("INSERT INTO roles (user_id, scope_id, scope, role) SELECT id, 'default-project', 'project', 'member' FROM users")


def _owners() -> None:
    op.create_table("domains",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Float(), server_default="1", nullable=False),
        sa.Column("borrow", sa.Boolean(), server_default=_FALSE, nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_domains"),
        sa.UniqueConstraint("name", name="uq_domains_name"))
    op.create_table("projects",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("domain_id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Float(), server_default="1", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domains.id"], name="fk_projects_domain_id"),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("domain_id", "name", name="uq_projects_domain_id_name"))
    op.add_column("users", sa.Column("domain_id", sa.String(length=26), server_default=DEFAULT, nullable=False))
    op.add_column("users", sa.Column("project_id", sa.String(length=26), server_default=PROJECT, nullable=False))
    op.create_table("roles",
        sa.Column("user_id", sa.String(length=26), nullable=False),
        sa.Column("scope_id", sa.String(length=26), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_roles_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "scope_id", name="pk_roles"))
    op.create_index("ix_roles_scope_id", "roles", ["scope_id"], unique=False)
    op.add_column("tokens", sa.Column("scopes", sa.Text(), server_default="[]", nullable=False))


def _groups() -> None:
    op.create_table("groups",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("scheduler", sa.String(length=64), server_default="", nullable=False),
        sa.Column("selector", sa.String(length=64), server_default="", nullable=False),
        sa.Column("options", sa.Text(), server_default="{}", nullable=False),
        sa.Column("total", sa.Text(), server_default="{}", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("name", name="uq_groups_name"))
    op.create_table("group_access",
        sa.Column("group_id", sa.String(length=26), nullable=False),
        sa.Column("scope_id", sa.String(length=26), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_group_access_group_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("group_id", "scope_id", name="pk_group_access"))
    for column in (sa.Column("group_id", sa.String(length=26), server_default=DEFAULT, nullable=False),
                   sa.Column("cordoned", sa.Boolean(), server_default=_FALSE, nullable=False),
                   sa.Column("draining", sa.Boolean(), server_default=_FALSE, nullable=False),
                   sa.Column("labels", sa.Text(), server_default="{}", nullable=False),
                   sa.Column("overrides", sa.Text(), server_default="{}", nullable=False),
                   sa.Column("address", sa.String(length=64), server_default="", nullable=False),
                   sa.Column("devices", sa.Text(), server_default="{}", nullable=False)):
        op.add_column("agents", column)
    op.create_table("slot_types",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("quantum", sa.BigInteger(), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("title", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_slot_types"))
    op.create_table("presets",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("slots", sa.Text(), nullable=False),
        sa.Column("group_id", sa.String(length=26), nullable=True),
        sa.Column("about", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_presets_group_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_presets"),
        sa.UniqueConstraint("name", name="uq_presets_name"))


def _limits() -> None:
    op.create_table("quotas",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("scope_id", sa.String(length=26), nullable=False),
        sa.Column("group_id", sa.String(length=26), server_default="", nullable=False),
        sa.Column("what", sa.String(length=64), nullable=False),
        sa.Column("limit", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quotas"),
        sa.UniqueConstraint("scope_id", "group_id", "what", name="uq_quotas_scope_id_group_id_what"))
    op.create_table("bookings",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("group_id", sa.String(length=26), nullable=False),
        sa.Column("scope_id", sa.String(length=26), nullable=False),
        sa.Column("agents", sa.Text(), nullable=False),
        sa.Column("begins", sa.Float(), nullable=False),
        sa.Column("ends", sa.Float(), nullable=False),
        sa.Column("made_by", sa.String(length=26), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_bookings_group_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_bookings"),
        sa.UniqueConstraint("name", name="uq_bookings_name"))


def _sessions() -> None:
    for column in (sa.Column("project_id", sa.String(length=26), server_default=PROJECT, nullable=False),
                   sa.Column("domain_id", sa.String(length=26), server_default=DEFAULT, nullable=False),
                   sa.Column("group_id", sa.String(length=26), server_default=DEFAULT, nullable=False),
                   sa.Column("attempt", sa.Integer(), server_default="1", nullable=False),
                   sa.Column("not_before", sa.Float(), nullable=True),
                   sa.Column("array_id", sa.String(length=26), nullable=True),
                   sa.Column("array_index", sa.Integer(), nullable=True),
                   sa.Column("claim", sa.Text(), server_default="", nullable=False),
                   sa.Column("evict", sa.String(length=16), server_default="", nullable=False),
                   sa.Column("expires_at", sa.Float(), nullable=True),
                   sa.Column("expires_why", sa.Text(), server_default="", nullable=False),
                   sa.Column("active_at", sa.Float(), nullable=True),
                   sa.Column("net", sa.Text(), server_default="", nullable=False),
                   sa.Column("stop_why", sa.Text(), server_default="", nullable=False),
                   sa.Column("grace_s", sa.Float(), nullable=True),
                   sa.Column("retried", sa.Integer(), server_default="0", nullable=False)):
        op.add_column("sessions", column)
    for column in (sa.Column("units", sa.Text(), server_default="{}", nullable=False),
                   sa.Column("counted_at", sa.Float(), nullable=True),
                   sa.Column("attempt", sa.Integer(), server_default="1", nullable=False)):
        op.add_column("kernels", column)
    op.create_index("ix_kernels_uncounted", "kernels", ["counted_at"], unique=False, sqlite_where=sa.text(_UNCOUNTED),
                    postgresql_where=sa.text(_UNCOUNTED))
    op.create_table("dependencies",
        sa.Column("session_id", sa.String(length=26), nullable=False),
        sa.Column("on_id", sa.String(length=26), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("met", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_dependencies_session_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("session_id", "on_id", name="pk_dependencies"))
    op.create_index("ix_dependencies_on_id", "dependencies", ["on_id"], unique=False)


def _records() -> None:
    op.create_table("usage",
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("group_id", sa.String(length=26), nullable=False),
        sa.Column("project_id", sa.String(length=26), nullable=False),
        sa.Column("user_id", sa.String(length=26), nullable=False),
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("domain_id", sa.String(length=26), nullable=False),
        sa.Column("amount_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("day", "group_id", "project_id", "user_id", "slot", name="pk_usage"))
    op.create_table("shares",
        sa.Column("group_id", sa.String(length=26), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("usage", sa.Float(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("group_id", "account", name="pk_shares"))
    op.create_table("decisions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("group_id", sa.String(length=26), nullable=False),
        sa.Column("snapshot", sa.String(length=64), nullable=False),
        sa.Column("scheduler", sa.String(length=128), nullable=False),
        sa.Column("selector", sa.String(length=128), nullable=False),
        sa.Column("placed", sa.Text(), nullable=False),
        sa.Column("frozen", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"))
    op.create_index("ix_decisions_group_id_at", "decisions", ["group_id", "at"], unique=False)


def downgrade() -> None:
    for table in ("decisions", "shares", "usage", "dependencies", "bookings", "quotas", "presets", "slot_types", "group_access",
                  "groups", "roles", "projects", "domains"):
        op.drop_table(table)
    op.drop_index("ix_kernels_uncounted", "kernels")
    with op.batch_alter_table("sessions") as batch:
        for name in ("project_id", "domain_id", "group_id", "attempt", "not_before", "array_id", "array_index", "claim", "evict",
                     "expires_at", "expires_why", "active_at", "net", "stop_why", "grace_s", "retried"):
            batch.drop_column(name)
    for table, names in (("agents", ("group_id", "cordoned", "draining", "labels", "overrides", "address", "devices")),
                         ("kernels", ("units", "counted_at", "attempt")),
                         ("users", ("domain_id", "project_id")), ("tokens", ("scopes",))):
        with op.batch_alter_table(table) as batch:
            for name in names:
                batch.drop_column(name)
