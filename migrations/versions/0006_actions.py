"""What operators do: a cancel that does not wait for the store, holds, the audit, and when a key was used last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # columns without a default: no row is rewritten. To workers of 0.1 an abandoned job is one that was cancelled
    last_used_at = sa.Column("last_used_at", postgresql.TIMESTAMP(timezone=True), nullable=True)
    op.add_column("api_key", last_used_at, if_not_exists=True)
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("key_name", sa.Text(), nullable=True),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("what", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        if_not_exists=True,
    )
    op.create_index("ix_audit_tenant_id", "audit", ["tenant", "id"], if_not_exists=True)
    op.create_table(
        "hold",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=True),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('queue', 'store', 'tenant')", name=op.f("ck_hold_kind")),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_hold")),
        if_not_exists=True,
    )
    abandoned_at = sa.Column("abandoned_at", postgresql.TIMESTAMP(timezone=True), nullable=True)
    op.add_column("job", abandoned_at, if_not_exists=True)


def downgrade() -> None:
    op.drop_column("job", "abandoned_at")
    op.drop_table("hold")
    op.drop_table("audit")
    op.drop_column("api_key", "last_used_at")
