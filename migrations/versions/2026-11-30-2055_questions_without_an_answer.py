"""Questions to Prometheus that got no answer

`confirmed` may be null: Prometheus gave no answer, and `on_error` of the route counted. Old rows stay: they have what
counted then.

Made 2026-11-30 20:55 UTC.
"""

from alembic import op

revision = "c7a1e40d5b38"
down_revision = "b41c7d90e2a6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("confirms", "confirmed", nullable=True)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DELETE FROM confirms WHERE confirmed IS NULL")
    op.alter_column("confirms", "confirmed", nullable=False)
