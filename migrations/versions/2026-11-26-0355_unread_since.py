"""Since when the DAG run of a trigger could not be read

Made 2026-11-26 03:55 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "7be13c5fa904"
down_revision = "d2f7a08c5b61"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("triggers", sa.Column("unread_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("triggers", "unread_since")
