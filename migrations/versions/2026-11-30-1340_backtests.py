"""Backtests that are asked for over HTTP

A new table: nothing that exists changes.

Made 2026-11-30 13:40 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "8e1f5b02c6da"
down_revision = "5c301fe4a907"
branch_labels = None
depends_on = None


def _time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "backtests",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("caller"),
        _text("asked"),
        _text("state"),
        _time("created_at", nullable=False),
        _time("started_at"),
        _time("ended_at"),
        sa.Column("claim", sa.Uuid(), nullable=True),
        _time("alive_at"),
        _number("attempts"),
        _text("step", nullable=True),
        _number("done"),
        _number("total"),
        _text("error", nullable=True),
        _text("result", nullable=True),
        _number("size"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backtests")),
    )
    op.create_index(
        "ix_backtests_open_caller",
        "backtests",
        ["caller"],
        unique=True,
        postgresql_where=sa.text("state IN ('pending', 'running')"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("backtests")
