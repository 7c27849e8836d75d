"""Schedules

Made 2026-11-25 20:25 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "9d41f7c6b803"
down_revision = "a4d2c7e1f905"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Better fail soon and be run again. A migration that waits behind a long query makes every other query wait too.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("action", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("trigger_id", sa.Uuid(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("schedules")
