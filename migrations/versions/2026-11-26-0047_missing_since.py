"""Since when MLflow does not know the object of a record

Made 2026-11-26 00:47 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "a94c1be07d52"
down_revision = "c3e81d5fa640"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("records", sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("records", "missing_since")
