"""Dead man's switches

Made 2026-11-25 20:55 UTC.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5e2a94d1c7b8"
down_revision = "9d41f7c6b803"
branch_labels = None
depends_on = None


def _time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def upgrade() -> None:
    # Better fail soon and be run again. A migration that waits behind a long query makes every other query wait too.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "switches",
        _text("name"),
        _text("entry"),
        sa.Column("labels", postgresql.JSONB(), nullable=False),
        _text("state"),
        _time("since", nullable=False),
        _time("counts_from", nullable=False),
        _time("last_at"),
        _text("last_event"),
        _time("failed_at"),
        sa.Column("starts", postgresql.JSONB(), nullable=False),
        sa.Column("allowance", sa.Double(), nullable=False),
        _time("paused_until"),
        _text("note"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_switches")),
    )
    op.create_table(
        "flips",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("switch"),
        _time("at", nullable=False),
        _text("before"),
        _text("after"),
        _text("detail"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flips")),
    )
    op.create_index("ix_flips_switch", "flips", ["switch", "id"])
    op.create_table(
        "pings",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("switch"),
        _time("at", nullable=False),
        _text("kind"),
        _text("run", nullable=True),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pings")),
    )
    op.create_index("ix_pings_switch", "pings", ["switch", "id"])
    op.create_table(
        "dag_reads",
        _text("airflow"),
        _text("dag_id"),
        _time("newest", nullable=False),
        _time("read_at"),
        _time("next_at", nullable=False),
        _text("error"),
        sa.PrimaryKeyConstraint("airflow", "dag_id", name=op.f("pk_dag_reads")),
    )
    op.create_table(
        "watch",
        sa.Column("id", sa.Integer(), nullable=False),
        _time("watched_until", nullable=False),
        _time("gap_until"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watch")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("watch", "dag_reads", "pings", "flips", "switches"):
        op.drop_table(table)
