"""A cancel that does not wait for the store: a job that was abandoned says since when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # a column without a default: no row is rewritten. To workers of 0.1 an abandoned job is one that was cancelled
    op.add_column("job", sa.Column("abandoned_at", postgresql.TIMESTAMP(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "abandoned_at")
