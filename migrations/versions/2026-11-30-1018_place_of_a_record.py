"""As whom and where a record goes: the login it was logged with, and MLflow's workspace

Made 2026-11-30 10:18 UTC. Empty, as in every older row: the login of the policy, and the default workspace.
"""

import sqlalchemy as sa
from alembic import op

revision = "c41f0a96d2e7"
down_revision = "b8e40d7f15c2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in ("login", "workspace"):
        op.add_column("records", sa.Column(name, sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in ("workspace", "login"):
        op.drop_column("records", name)
