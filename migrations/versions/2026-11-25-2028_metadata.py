"""Metadata on its way to MLflow

Made 2026-11-25 20:28 UTC.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "a4c17e02d95b"
down_revision = "7b3f0c9d2a51"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Better fail soon and be run again. A migration that waits behind a long query makes every other query wait too.
    op.execute("SET LOCAL lock_timeout = '5s'")
    _reports()
    _records()
    op.create_table(
        "local_ids",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_local_ids")),
    )
    op.create_index("ix_local_ids_name", "local_ids", ["name"], unique=False)


def _reports() -> None:
    op.create_table(
        "reports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("component", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("trigger_id", sa.Uuid(), nullable=True),
        sa.Column("told", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
    )
    op.create_index("ix_reports_key", "reports", ["key"], unique=True)
    op.create_index("ix_reports_run", "reports", ["run", "id"], unique=False)
    op.create_index("ix_reports_at", "reports", ["at"], unique=False)
    named = sa.text("trigger_id IS NOT NULL")
    op.create_index("ix_reports_trigger_id", "reports", ["trigger_id"], unique=False, postgresql_where=named)


def _records() -> None:
    op.create_table(
        "records",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("attempted_at", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("report", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_records")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index("ix_records_key", "records", ["key"], unique=True)
    op.create_index("ix_records_stream", "records", ["stream", "seq"], unique=False)
    op.create_index("ix_records_at", "records", ["at"], unique=False)
    for state, columns in (("pending", ["stream", "seq"]), ("aside", ["seq"])):
        where = sa.text(f"state = '{state}'")
        op.create_index(f"ix_records_{state}", "records", columns, unique=False, postgresql_where=where)
    made = sa.text("kind IN ('create logged model', 'create model version')")
    op.create_index("ix_records_models", "records", ["stream", "seq"], unique=False, postgresql_where=made)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("local_ids", "records", "reports"):
        op.drop_table(table)
