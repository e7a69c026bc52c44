"""A job keeps the trace that its request belongs to; no CHECK, since nothing but the parser's result is ever written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("traceparent", sa.Text()), if_not_exists=True)


def downgrade() -> None:
    op.drop_column("job", "traceparent")
