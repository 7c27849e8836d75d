"""An index finds the alerts of a group by their time

The effect of a trigger, and the episodes of a group, read the alerts that began since then. The index is built without
blocking writers.

Made 2026-11-30 10:06 UTC.
"""

from alembic import op

revision = "1d80f6a2c9e5"
down_revision = "e7c15a90b3d4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # One that was interrupted leaves an index that nobody may use.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_alerts_group_seen")
        op.execute("CREATE INDEX CONCURRENTLY ix_alerts_group_seen ON alerts (group_key, first_seen_at)")
    op.execute("SET LOCAL lock_timeout = '5s'")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_alerts_group_seen", table_name="alerts")
