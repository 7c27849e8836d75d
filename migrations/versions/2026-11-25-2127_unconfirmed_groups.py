"""When Prometheus did not confirm a group

Made 2026-11-25 21:27 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "c3e81d5fa640"
down_revision = "b7d1c24e90f3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("groups", sa.Column("unconfirmed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("groups", "unconfirmed_at")
