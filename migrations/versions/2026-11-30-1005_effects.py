"""The effect of each trigger

Triggers that ended before this migration get no row: their effect is `unknown`. Triggers that are open get a row when
they end.

Made 2026-11-30 10:05 UTC.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "e7c15a90b3d4"
down_revision = "5c2f10a6b8d1"
branch_labels = None
depends_on = None


def _time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "effects",
        sa.Column("trigger_id", sa.Uuid(), nullable=False),
        _text("effect", nullable=True),
        _text("reason"),
        _text("detail"),
        _time("until"),
        _time("at", nullable=False),
        _time("counts_from"),
        _text("model", nullable=True),
        _text("version", nullable=True),
        sa.Column("promotion", sa.Uuid(), nullable=True),
        sa.Column("former", postgresql.JSONB(), nullable=False),
        _time("next_at"),
        sa.PrimaryKeyConstraint("trigger_id", name=op.f("pk_effects")),
    )
    op.create_index("ix_effects_next_at", "effects", ["next_at"], postgresql_where=sa.text("next_at IS NOT NULL"))
    op.create_index(
        "ix_effects_movable",
        "effects",
        ["trigger_id"],
        postgresql_where=sa.text("effect IN ('no_model', 'not_promoted', 'unknown')"),
    )
    op.create_table(
        "outages",
        _time("since", nullable=False),
        _time("until", nullable=False),
        sa.PrimaryKeyConstraint("since", name=op.f("pk_outages")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("outages", "effects"):
        op.drop_table(table)
