"""An agent's token belongs to the first agent that uses it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("agent_id", sa.String(length=26), nullable=True))


def downgrade() -> None:
    op.drop_column("tokens", "agent_id")
