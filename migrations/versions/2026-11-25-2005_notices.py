"""Notices

Made 2026-11-25 20:05 UTC.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "7b1f0d62c9ae"
down_revision = "c41e8d90a7f2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Better fail soon and be run again. A migration that waits behind a long query makes every other query wait too.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "notices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("link", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    op.create_index(
        "ix_notices_open_key", "notices", ["key"], unique=True, postgresql_where=sa.text("resolved_at IS NULL")
    )
    op.create_index(
        "ix_notices_resolved_at",
        "notices",
        ["resolved_at", "id"],
        unique=False,
        postgresql_where=sa.text("resolved_at IS NOT NULL"),
    )
    op.create_table(
        "tellings",
        sa.Column("notice", sa.Uuid(), nullable=False),
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("open_item", sa.Uuid(), nullable=False),
        sa.Column("resolve_item", sa.Uuid(), nullable=True),
        sa.Column("repeat", sa.Double(), nullable=True),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("notice", "receiver", name=op.f("pk_tellings")),
    )
    op.create_index(
        "ix_tellings_next_at", "tellings", ["next_at"], unique=False, postgresql_where=sa.text("next_at IS NOT NULL")
    )
    op.create_index("ix_tellings_open_item", "tellings", ["open_item"], unique=False)
    # The numbering writes the table anew. The table has one row for each kept trigger, so this takes seconds at most.
    op.add_column("outbox", sa.Column("place", sa.BigInteger(), sa.Identity(), nullable=False))
    op.add_column("outbox", sa.Column("lane", sa.Text(), nullable=True))
    op.create_index(
        "ix_outbox_lane",
        "outbox",
        ["lane", "place"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' AND lane IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_outbox_lane", table_name="outbox")
    op.drop_column("outbox", "lane")
    op.drop_column("outbox", "place")
    op.drop_table("tellings")
    op.drop_table("notices")
