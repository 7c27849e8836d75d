"""The key of sessions, and the history of a group by index

The pages ask for the history of many groups at once. Building the two indexes keeps writers waiting: about two seconds for a
million alerts. The key is made when the first page is asked for.

Made 2026-11-30 06:45 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "5c0e8a71d3f9"
down_revision = "5c0e9b7714ad"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index("ix_alerts_group", "alerts", ["group_key", "id"])
    op.create_index("ix_triggers_group", "triggers", ["group_key", "id"])
    op.create_table(
        "session_key",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session_key")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("session_key")
    op.drop_index("ix_triggers_group", table_name="triggers")
    op.drop_index("ix_alerts_group", table_name="alerts")
