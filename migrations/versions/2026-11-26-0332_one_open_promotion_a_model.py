"""One open promotion a model, whatever the alias

It fails while two are open for one model. Run it again after a minute.

Made 2026-11-26 03:32 UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "d2f7a08c5b61"
down_revision = "a94c1be07d52"
branch_labels = None
depends_on = None

_NAME, _OPEN = "ix_promotions_open", sa.text("state IN ('open', 'moving')")


def upgrade() -> None:
    _replace(["registry", "model"])


def downgrade() -> None:
    _replace(["registry", "model", "mark"])


def _replace(columns: list[str]) -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index(_NAME, table_name="promotions")
    op.create_index(_NAME, "promotions", columns, unique=True, postgresql_where=_OPEN)
