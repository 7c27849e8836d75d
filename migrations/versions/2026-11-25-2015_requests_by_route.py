"""Requests by route

An index finds decisions on requests and schedules by route and time. Decisions on an alert are found by the alert.

Made 2026-11-25 20:15 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "7b3f0c9d2a51"
down_revision = "7b1f0d62c9ae"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Better fail soon and be run again. A migration that waits behind a long query makes every other query wait too.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index(
        "ix_decisions_refused",
        "decisions",
        ["route", "first_at"],
        unique=False,
        postgresql_where=sa.text("alert IS NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_decisions_refused", table_name="decisions")
