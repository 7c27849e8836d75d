"""The probation of a promotion

A promotion from before this migration has none: nothing gives its alias back by itself.

Made 2026-11-30 13:45 UTC.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "9d27b5e1c06f"
down_revision = "8e1f5b02c6da"
branch_labels = None
depends_on = None

#: By name: the column, and which rows it has.
INDEXES = {
    "ix_promotions_probation_at": ("probation_at", "probation_at IS NOT NULL"),
    "ix_promotions_probation_alert": ("probation_alert", "probation_alert IS NOT NULL"),
    "ix_promotions_probation_trigger": ("trigger_id", "probation IS NOT NULL"),
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("promotions", sa.Column("probation", postgresql.JSONB(), nullable=True))
    op.add_column("promotions", sa.Column("probation_alert", sa.Uuid(), nullable=True))
    op.add_column("promotions", sa.Column("probation_at", sa.DateTime(timezone=True), nullable=True))
    for name, (column, rows) in INDEXES.items():
        op.create_index(name, "promotions", [column], postgresql_where=sa.text(rows))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in INDEXES:
        op.drop_index(name, table_name="promotions")
    for column in ("probation_at", "probation_alert", "probation"):
        op.drop_column("promotions", column)
