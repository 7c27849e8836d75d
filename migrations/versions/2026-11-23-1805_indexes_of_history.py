"""Indexes of history

With these, lists, explanations and pruning use indexes only, however long the history is. The reason of the newest decision
stands beside its alert, because no index spans two tables. Postgres builds each index without blocking writers.

Made 2026-11-23 18:05 UTC.
"""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "5d0c7a9be114"
down_revision = "f9dde46624db"
branch_labels = None
depends_on = None

_QUIET = sa.text("greatest(closed_at, resolved_at, late_at)")

#: name, table, columns, and what else makes the index.
INDEXES: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("ix_alerts_reason", "alerts", ["reason", "id"], {}),
    ("ix_alerts_quiet", "alerts", [_QUIET, "id"], {"postgresql_where": sa.text("closed_at IS NOT NULL")}),
    ("ix_triggers_reason", "triggers", ["reason", "id"], {}),
    ("ix_triggers_created_at", "triggers", ["created_at"], {}),
    (
        "ix_triggers_ended_at",
        "triggers",
        ["ended_at", "id"],
        {"postgresql_where": sa.text("ended_at IS NOT NULL")},
    ),
    (
        "ix_triggers_success",
        "triggers",
        ["route", "ended_at"],
        {"postgresql_where": sa.text("state = 'succeeded'")},
    ),
    (
        "ix_triggers_group_labels",
        "triggers",
        ["group_labels"],
        {"postgresql_using": "gin", "postgresql_ops": {"group_labels": "jsonb_path_ops"}},
    ),
    ("ix_outbox_dead", "outbox", ["target"], {"postgresql_where": sa.text("state = 'dead'")}),
]

_FILL = sa.text("""
    WITH page AS (SELECT id FROM alerts WHERE id > :after ORDER BY id LIMIT 5000), filled AS (
        UPDATE alerts SET reason = decisions.reason FROM page, decisions
        WHERE alerts.id = page.id AND decisions.id = alerts.decision_id AND alerts.reason IS NULL
    )
    SELECT id FROM page ORDER BY id DESC LIMIT 1
""").columns(id=sa.Uuid())


def upgrade() -> None:
    # Better fail soon and be run again. A migration that waits behind a long query makes every other query wait too.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("ALTER TABLE alerts ADD COLUMN IF NOT EXISTS reason text")
    with op.get_context().autocommit_block():
        after: Any = UUID(int=0)
        while after is not None:
            after = op.get_bind().execute(_FILL, {"after": after}).scalar_one_or_none()
        for name, table, columns, more in INDEXES:
            # An earlier run may have left a half-built index, which is of no use.
            op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
            op.create_index(name, table, columns, postgresql_concurrently=True, **more)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, table, _, _ in INDEXES:
        op.drop_index(name, table_name=table)
    op.drop_column("alerts", "reason")
