"""When alerts were heard, to the minute

It is kept from now on. Of alerts from before, the first notification and the newest are known.

Made 2026-11-30 11:00 UTC.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5c301fe4a907"
down_revision = "40c6d2e81b9f"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "heard",
        sa.Column("alert", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("times", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.PrimaryKeyConstraint("alert", "since", name=op.f("pk_heard")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("ix_heard_since", "heard", ["since", "alert"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("heard")
