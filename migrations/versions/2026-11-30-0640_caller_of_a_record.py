"""Which token handed over a record

Made 2026-11-30 06:40 UTC. Null: it came with a report, or it was taken before.
"""

import sqlalchemy as sa
from alembic import op

revision = "5c0e9b7714ad"
down_revision = "7be13c5fa904"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("records", sa.Column("caller", sa.Text(), nullable=True))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("records", "caller")
