"""A switch is its entry and its labels: two of them may fill to one name

Every row keeps its name, its facts and its flips. Rows with equal entry and labels had equal names, so there are none.

Made 2026-11-30 07:25 UTC.
"""

from alembic import op

revision = "5c1e90b7d243"
down_revision = "5c0e8a71d3f9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index("ix_switches_identity", "switches", ["entry", "labels"], unique=True)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_switches_identity", "switches")
