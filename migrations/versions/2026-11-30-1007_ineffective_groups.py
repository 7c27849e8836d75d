"""Groups that retraining does not help

Rows that exist count no retrain without effect: effects are judged since a short time only.

Made 2026-11-30 10:07 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "b8e40d7f15c2"
down_revision = "1d80f6a2c9e5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("groups", sa.Column("ineffective", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("groups", sa.Column("ineffective_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("groups", sa.Column("ineffective_under", sa.Text(), nullable=True))
    op.add_column("groups", sa.Column("released_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("effects", sa.Column("under", sa.Text(), nullable=True))
    op.create_index("ix_groups_ineffective", "groups", ["key"], postgresql_where=sa.text("ineffective > 0"))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_groups_ineffective", table_name="groups")
    op.drop_column("effects", "under")
    for column in ("released_at", "ineffective_under", "ineffective_since", "ineffective"):
        op.drop_column("groups", column)
