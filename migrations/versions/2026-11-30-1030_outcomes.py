"""The news of a run that ended well, and of a promotion

Runs that ended before this migration are announced to nobody. Promotions from before it have no metrics.

Made 2026-11-30 10:30 UTC.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "40c6d2e81b9f"
down_revision = "c41f0a96d2e7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("effects", sa.Column("announce_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_effects_announce_at", "effects", ["announce_at"], postgresql_where=sa.text("announce_at IS NOT NULL")
    )
    op.add_column("promotions", sa.Column("trigger_id", sa.Uuid(), nullable=True))
    op.add_column("promotions", sa.Column("metrics", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for column in ("metrics", "trigger_id"):
        op.drop_column("promotions", column)
    op.drop_index("ix_effects_announce_at", table_name="effects")
    op.drop_column("effects", "announce_at")
