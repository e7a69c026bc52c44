"""Caps of stores and tenants that operators set while everything runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cap",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("max_in_flight", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=True),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('store', 'tenant')", name=op.f("ck_cap_kind")),
        sa.CheckConstraint("max_in_flight > 0", name=op.f("ck_cap_max_in_flight")),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_cap")),
        if_not_exists=True,
    )


def downgrade() -> None:
    op.drop_table("cap")
