"""The names of a group's labels, in an index

A new index: no row changes.

Made 2026-11-30 17:50 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "b41c7d90e2a6"
down_revision = "9d27b5e1c06f"
branch_labels = None
depends_on = None

SHAPE = "jsonb_path_query_array(labels, '$.keyvalue().key')"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    fired = sa.text("last_trigger IS NOT NULL")
    op.create_index("ix_groups_shape", "groups", ["route", "mode", sa.text(SHAPE)], postgresql_where=fired)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_groups_shape", table_name="groups")
