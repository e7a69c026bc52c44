"""Processes say with which profiles they work, and hear of a reload of the stores files that was asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = postgresql.TIMESTAMP(timezone=True)
    op.add_column("worker", sa.Column("stores", postgresql.JSONB(astext_type=sa.Text())), if_not_exists=True)
    op.create_table(
        "api_process",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("stores", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_process")),
        if_not_exists=True,
    )
    op.create_table(
        "stores_reload",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("asked_at", moment, nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stores_reload")),
        if_not_exists=True,
    )
    # the key of the installation, 244 random bits: versions of two installations with one secret differ
    op.execute(
        "INSERT INTO stores_reload (name, key) VALUES ('stores', gen_random_uuid()::text || gen_random_uuid()::text)"
        " ON CONFLICT DO NOTHING"
    )


def downgrade() -> None:
    op.drop_table("stores_reload")
    op.drop_table("api_process")
    op.drop_column("worker", "stores")
