"""the tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_key_digest")),
    )
    op.create_table(
        "breaker",
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("opened_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("probe_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("store", name=op.f("pk_breaker")),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("run", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("source", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("fingerprint", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("overwrite", sa.Boolean(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=True),
        sa.Column(
            "labels", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("verify", sa.Text(), nullable=False),
        sa.Column("slice_size", sa.Integer(), nullable=True),
        sa.Column("retry_for_s", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("slice_bytes", sa.Integer(), nullable=True),
        sa.Column("slices_total", sa.Integer(), nullable=True),
        sa.Column("slices_left", sa.Integer(), nullable=True),
        sa.Column("bytes_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("session", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("ordered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("existed", sa.Boolean(), nullable=True),
        sa.Column("hashing", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("digests", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("finish_claims", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("paused_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("pause_reason", sa.Text(), nullable=True),
        sa.Column("token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.Uuid(), nullable=True),
        sa.Column("lease_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("dispatched_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("not_before", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("failing_since", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("deaths", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("session_losses", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_digest", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (state IN ('queued', 'initializing', 'uploading', 'finishing', 'cancelling'))",
            name=op.f("ck_job_finished_at"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'initializing', 'uploading', 'finishing', 'succeeded', 'failed', 'cancelling', 'cancelled')",
            name=op.f("ck_job_state"),
        ),
        sa.CheckConstraint("step IN ('idle', 'pending', 'dispatched', 'running')", name=op.f("ck_job_step")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02},
    )
    op.create_index("ix_job_cancelling", "job", ["id"], unique=False, postgresql_where=sa.text("state = 'cancelling'"))
    op.create_index(
        "ix_job_due_step",
        "job",
        ["store", "tenant", "priority", "id"],
        unique=False,
        postgresql_where=sa.text(
            "step = 'pending' AND not_before IS NULL AND (paused_at IS NULL OR state <> 'queued')"
        ),
    )
    op.create_index(
        "ix_job_handed_out",
        "job",
        ["step", "worker"],
        unique=False,
        postgresql_where=sa.text("step IN ('dispatched', 'running')"),
    )
    op.create_index(
        "ix_job_labels",
        "job",
        ["labels"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("labels <> '{}'::jsonb"),
    )
    op.create_index(
        "ix_job_live_tenant", "job", ["tenant"], unique=False, postgresql_where=sa.text("finished_at IS NULL")
    )
    op.create_index("ix_job_target_id", "job", ["target", "id"], unique=False)
    op.create_index("ix_job_tenant_id", "job", ["tenant", "id"], unique=False)
    op.create_index("ix_job_tenant_state_id", "job", ["tenant", "state", "id"], unique=False)
    op.create_index(
        "ix_job_uploading",
        "job",
        ["store", "tenant", "priority", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'uploading' AND paused_at IS NULL"),
    )
    op.create_index(
        "ix_job_waiting",
        "job",
        ["not_before"],
        unique=False,
        postgresql_where=sa.text("step = 'pending' AND not_before IS NOT NULL"),
    )
    op.create_index(
        "uq_job_idempotency",
        "job",
        ["tenant", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "uq_job_live_target", "job", ["target"], unique=True, postgresql_where=sa.text("finished_at IS NULL")
    )
    op.create_table(
        "leadership",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("until", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leadership")),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("roots", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("claimed_through", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("ended_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("end", sa.Text(), nullable=True),
        sa.CheckConstraint("\"end\" IN ('stopped', 'dead')", name=op.f("ck_worker_end")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_index(
        "ix_worker_ended", "worker", ["ended_at"], unique=False, postgresql_where=sa.text("ended_at IS NOT NULL")
    )
    op.create_index(
        "ix_worker_live", "worker", ["heartbeat_at"], unique=False, postgresql_where=sa.text("ended_at IS NULL")
    )
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column(
            "at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("cause", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_event_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_index("ix_event_job_id_id", "event", ["job_id", "id"], unique=False)
    op.create_table(
        "slice",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Uuid(), nullable=True),
        sa.Column("lease_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("dispatched_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("claimed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("not_before", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("deaths", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sends", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tag", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("done_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'dispatched', 'sending', 'done')", name=op.f("ck_slice_state")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_slice_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_slice")),
        postgresql_with={
            "fillfactor": 70,
            "autovacuum_vacuum_scale_factor": 0.02,
            "autovacuum_vacuum_insert_scale_factor": 0.2,
        },
    )
    op.create_index(
        "ix_slice_due",
        "slice",
        ["job_id", "number"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' AND not_before IS NULL"),
    )
    op.create_index(
        "ix_slice_in_flight",
        "slice",
        ["state", "job_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('dispatched', 'sending')"),
    )
    op.create_index(
        "ix_slice_waiting",
        "slice",
        ["not_before"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' AND not_before IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_slice_waiting", table_name="slice", postgresql_where=sa.text("state = 'pending' AND not_before IS NOT NULL")
    )
    op.drop_index(
        "ix_slice_in_flight", table_name="slice", postgresql_where=sa.text("state IN ('dispatched', 'sending')")
    )
    op.drop_index(
        "ix_slice_due", table_name="slice", postgresql_where=sa.text("state = 'pending' AND not_before IS NULL")
    )
    op.drop_table("slice")
    op.drop_index("ix_event_job_id_id", table_name="event")
    op.drop_table("event")
    op.drop_index("ix_worker_live", table_name="worker", postgresql_where=sa.text("ended_at IS NULL"))
    op.drop_index("ix_worker_ended", table_name="worker", postgresql_where=sa.text("ended_at IS NOT NULL"))
    op.drop_table("worker")
    op.drop_table("leadership")
    op.drop_index("uq_job_live_target", table_name="job", postgresql_where=sa.text("finished_at IS NULL"))
    op.drop_index("uq_job_idempotency", table_name="job", postgresql_where=sa.text("idempotency_key IS NOT NULL"))
    op.drop_index(
        "ix_job_waiting", table_name="job", postgresql_where=sa.text("step = 'pending' AND not_before IS NOT NULL")
    )
    op.drop_index(
        "ix_job_uploading", table_name="job", postgresql_where=sa.text("state = 'uploading' AND paused_at IS NULL")
    )
    op.drop_index("ix_job_tenant_state_id", table_name="job")
    op.drop_index("ix_job_tenant_id", table_name="job")
    op.drop_index("ix_job_target_id", table_name="job")
    op.drop_index("ix_job_live_tenant", table_name="job", postgresql_where=sa.text("finished_at IS NULL"))
    op.drop_index(
        "ix_job_labels", table_name="job", postgresql_using="gin", postgresql_where=sa.text("labels <> '{}'::jsonb")
    )
    op.drop_index("ix_job_handed_out", table_name="job", postgresql_where=sa.text("step IN ('dispatched', 'running')"))
    op.drop_index(
        "ix_job_due_step",
        table_name="job",
        postgresql_where=sa.text(
            "step = 'pending' AND not_before IS NULL AND (paused_at IS NULL OR state <> 'queued')"
        ),
    )
    op.drop_index("ix_job_cancelling", table_name="job", postgresql_where=sa.text("state = 'cancelling'"))
    op.drop_table("job")
    op.drop_table("breaker")
    op.drop_table("api_key")
