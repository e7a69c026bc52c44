"""How fast the link to each store is, and how far the slices under way are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # columns only, all without a default: no table is rewritten, and workers of 0.1 go on without them
    op.add_column("worker", sa.Column("links", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("worker", sa.Column("links_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("worker", sa.Column("sending", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("slice", sa.Column("sent_bytes", sa.Integer(), nullable=True))
    op.add_column("job", sa.Column("sent_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "store_link",
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("goodput_bytes_per_s", sa.Double(), nullable=False),
        sa.Column("answer_bytes", sa.Double(), nullable=False),
        sa.Column("answer_s", sa.Double(), nullable=False),
        sa.Column("measured_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("store", name=op.f("pk_store_link")),
    )


def downgrade() -> None:
    op.drop_table("store_link")
    op.drop_column("job", "sent_bytes")
    op.drop_column("slice", "sent_bytes")
    op.drop_column("worker", "sending")
    op.drop_column("worker", "links_at")
    op.drop_column("worker", "links")
